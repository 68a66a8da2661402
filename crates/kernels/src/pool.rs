//! A persistent pool of worker threads for kernels.
//!
//! One call, [`parallel`], runs numbered tasks on the calling thread and the workers, which take task numbers from a
//! shared counter until none is left. Kernels are short (often tens of microseconds), so workers spin for a moment
//! after each job before they park, and a caller never waits for a worker that has not started on its job: a sleeping
//! worker costs nothing but its help.
//!
//! **Determinism** is the caller's side of the bargain: which thread runs a task is left open, so a task's result must
//! depend on its number only, and the number of tasks only on the problem and [`threads`].
//!
//! A task that calls [`parallel`] again runs those tasks itself, one after the other. A second thread that calls while a
//! job is running does the same, so nothing ever waits for a lock. On wasm everything is serial.

use std::marker::PhantomData;

/// The number of threads, the caller included, that [`parallel`] uses: at first the number of CPUs that the process may
/// use, then what [`set_threads`] said last. Always at least 1; always 1 on wasm.
pub fn threads() -> usize {
    imp::threads()
}

/// The number of threads that a call of [`parallel`] from here would use: 1 inside a task.
pub(crate) fn threads_here() -> usize {
    if imp::inside() { 1 } else { threads() }
}

/// Sets the number of threads, the caller included, that later calls of [`parallel`] use. 0 means the number of CPUs
/// that the process may use. May be called at any time; it has no effect on wasm.
pub fn set_threads(n: usize) {
    imp::set_threads(n)
}

/// Runs `f(0)`, `f(1)`, … `f(tasks - 1)`, each exactly once, on the calling thread and the workers, and returns when all
/// have finished.
///
/// # Panics
/// If a task panics, tasks that have not begun may be skipped, and the first panic continues in the caller once no task
/// is running any more. The pool stays usable.
pub fn parallel(tasks: usize, f: &(dyn Fn(usize) + Sync)) {
    imp::parallel(tasks, f)
}

/// Cuts `data` into chunks of `chunk` elements (the last may be shorter) and runs `f(index, chunk)` for each on the pool.
///
/// # Panics
/// If `chunk` is 0, or as [`parallel`].
pub fn parallel_chunks<T: Send>(data: &mut [T], chunk: usize, f: &(dyn Fn(usize, &mut [T]) + Sync)) {
    assert!(chunk > 0, "parallel_chunks: the chunk length must not be 0");
    let len = data.len();
    let shared = SharedMut::new(data);
    parallel(len.div_ceil(chunk), &|i| {
        let start = i * chunk;
        // SAFETY: the ranges of different tasks do not overlap, and each task runs once.
        f(i, unsafe { shared.slice(start, chunk.min(len - start)) })
    });
}

/// Divides `n` things into tasks, large ones first, of at least `least`: each begins where the last ended, and the list ends
/// with `n`. Large tasks go through memory in long runs, and small ones at the end let threads finish together.
pub(crate) fn shares(n: usize, least: usize) -> Vec<usize> {
    let (mut begins, mut at) = (vec![0], 0);
    while at < n {
        let rest = n - at;
        at += (rest / (2 * threads_here())).max(least.max(1)).min(rest);
        begins.push(at);
    }
    begins
}

/// A mutable slice that the tasks of one [`parallel`] call write to in places that do not overlap.
///
/// The borrow checker cannot see which task touches what, so taking a part is unsafe; bounds are checked nevertheless.
pub(crate) struct SharedMut<'a, T> {
    data: *mut T,
    len: usize,
    _borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out parts of a `&mut [T]` under the contract of `slice`, which forbids overlap between threads.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}

#[allow(dead_code)] // not every kernel needs every accessor
impl<'a, T> SharedMut<'a, T> {
    /// Borrows `data` for the time of a parallel section.
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), _borrow: PhantomData }
    }

    /// The part of `len` elements from `start`.
    ///
    /// # Safety
    /// No two live parts may overlap, on any thread.
    ///
    /// # Panics
    /// If the part does not lie within the slice.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start, "part {start}+{len} of a slice of {}", self.len);
        // SAFETY: within the borrowed slice (checked), and by the caller's promise borrowed by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), len) }
    }

    /// The part from `start` to the end, as a view of its own.
    ///
    /// # Panics
    /// If `start` lies beyond the end.
    pub(crate) fn part(&self, start: usize) -> SharedMut<'a, T> {
        assert!(start <= self.len);
        // SAFETY: within the slice or at its end.
        Self { data: unsafe { self.data.add(start) }, len: self.len - start, _borrow: PhantomData }
    }

    /// The address of the first element; what is done with it follows the rules of [`slice`](Self::slice).
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.data
    }
}

#[cfg(target_family = "wasm")]
mod imp {
    pub fn threads() -> usize {
        1
    }
    pub fn set_threads(_: usize) {}
    pub fn inside() -> bool {
        false
    }
    pub fn parallel(tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        (0..tasks).for_each(f)
    }
}

#[cfg(not(target_family = "wasm"))]
mod imp {
    use std::any::Any;
    use std::cell::{Cell, UnsafeCell};
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
    use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
    use std::sync::{Arc, Mutex, TryLockError};
    use std::thread::Thread;

    /// Turns of the spin loop (each a few `pause` instructions, 100 to 300 µs in all) before a worker parks.
    const SPINS: u32 = 1500;

    static THREADS: AtomicUsize = AtomicUsize::new(0);
    static STATE: State = State {
        word: AtomicU64::new(0),
        next: AtomicUsize::new(0),
        job: UnsafeCell::new(None),
        panicked: AtomicBool::new(false),
        payload: Mutex::new(None),
    };
    /// The workers started so far. Holding the lock is the right to publish a job.
    static WORKERS: Mutex<Vec<Arc<Worker>>> = Mutex::new(Vec::new());

    thread_local! {
        /// Whether this thread is inside a task.
        static INSIDE: Cell<bool> = const { Cell::new(false) };
    }

    /// A job as the workers see it; the closure's lifetime is erased, `parallel` does not return while it is in use.
    #[derive(Clone, Copy)]
    struct Job {
        f: *const (dyn Fn(usize) + Sync),
        tasks: usize,
    }

    struct State {
        /// The job's number (bits 32..), whether workers may still join it (bit 31), how many are working on it (bits 0..31).
        word: AtomicU64,
        next: AtomicUsize,
        job: UnsafeCell<Option<Job>>,
        panicked: AtomicBool,
        payload: Mutex<Option<Box<dyn Any + Send>>>,
    }

    // SAFETY: `job` is written only by the holder of `WORKERS`, while `word` says closed with nobody working, and read only
    // by workers that have joined an open job; the atomics order the two.
    unsafe impl Sync for State {}

    const OPEN: u64 = 1 << 31;
    const COUNT: u64 = OPEN - 1;

    struct Worker {
        index: usize,
        parked: AtomicBool,
        thread: Mutex<Option<Thread>>,
    }

    fn cpus() -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }

    pub fn threads() -> usize {
        match THREADS.load(Relaxed) {
            0 => {
                let n = cpus();
                // Somebody may have set a number meanwhile: theirs stays.
                let _ = THREADS.compare_exchange(0, n, Relaxed, Relaxed);
                THREADS.load(Relaxed)
            }
            n => n,
        }
    }

    pub fn inside() -> bool {
        INSIDE.get()
    }

    pub fn set_threads(n: usize) {
        THREADS.store(if n == 0 { cpus() } else { n }, Relaxed);
    }

    pub fn parallel(tasks: usize, f: &(dyn Fn(usize) + Sync)) {
        let n = threads();
        if tasks == 0 {
            return;
        }
        if tasks == 1 {
            return f(0); // what it calls may still use the pool
        }
        if n == 1 || INSIDE.get() {
            return (0..tasks).for_each(f);
        }
        let mut workers = match WORKERS.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            // Another thread's job is running.
            Err(TryLockError::WouldBlock) => return (0..tasks).for_each(f),
        };
        while workers.len() + 1 < n {
            match start_worker(workers.len()) {
                Some(w) => workers.push(w),
                None => break, // the system gives no more threads: those there are do the work
            }
        }

        // SAFETY: only the lifetime changes. This function returns only when the job is closed and nobody works on it.
        let erased: *const (dyn Fn(usize) + Sync) =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
        // SAFETY: the lock is held, and the last job was closed with a worker count of 0, so that nobody reads the cell.
        unsafe { *STATE.job.get() = Some(Job { f: erased, tasks }) };
        STATE.next.store(0, Relaxed);
        let number = (STATE.word.load(Relaxed) >> 32).wrapping_add(1) & u64::from(u32::MAX);
        STATE.word.store(number << 32 | OPEN, SeqCst);
        for w in workers.iter().take((n - 1).min(tasks - 1)) {
            if w.parked.swap(false, SeqCst)
                && let Some(t) = &*w.thread.lock().unwrap_or_else(|e| e.into_inner())
            {
                t.unpark();
            }
        }

        work(Job { f: erased, tasks });

        STATE.word.fetch_and(!OPEN, SeqCst);
        let mut spins = 0u32;
        while STATE.word.load(Acquire) & COUNT != 0 {
            spins += 1;
            // A worker that was descheduled in its task needs this CPU more than we do.
            if spins > 4 * SPINS { std::thread::yield_now() } else { pause() }
        }
        let payload = if STATE.panicked.swap(false, Relaxed) {
            STATE.payload.lock().unwrap_or_else(|e| e.into_inner()).take()
        } else {
            None
        };
        drop(workers);
        if let Some(p) = payload {
            resume_unwind(p);
        }
    }

    /// Runs tasks until the counter is used up. A panic is kept for the caller and ends the job early.
    fn work(job: Job) {
        // SAFETY: the caller of `parallel` keeps the closure alive until every thread has left `work`.
        let f = unsafe { &*job.f };
        INSIDE.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let i = STATE.next.fetch_add(1, Relaxed);
                if i >= job.tasks {
                    break;
                }
                f(i);
            }
        }));
        INSIDE.set(false);
        if let Err(p) = result {
            STATE.next.store(job.tasks, Relaxed);
            let mut slot = STATE.payload.lock().unwrap_or_else(|e| e.into_inner());
            if slot.is_none() {
                *slot = Some(p);
            }
            STATE.panicked.store(true, Relaxed);
        }
    }

    fn start_worker(index: usize) -> Option<Arc<Worker>> {
        let worker = Arc::new(Worker { index, parked: AtomicBool::new(false), thread: Mutex::new(None) });
        let own = worker.clone();
        let handle =
            std::thread::Builder::new().name(format!("imaginal-{}", index + 1)).spawn(move || run(&own)).ok()?;
        *worker.thread.lock().unwrap_or_else(|e| e.into_inner()) = Some(handle.thread().clone());
        Some(worker)
    }

    fn run(me: &Worker) -> ! {
        let mut seen = 0u64; // the job this worker has done last
        loop {
            let mut spins = 0;
            let joined = loop {
                let word = STATE.word.load(Acquire);
                let allowed = me.index + 1 < THREADS.load(Relaxed);
                if word & OPEN != 0 && word >> 32 != seen && allowed {
                    if STATE.word.compare_exchange(word, word + 1, SeqCst, Relaxed).is_ok() {
                        break word >> 32;
                    }
                    continue;
                }
                spins += 1;
                if spins < SPINS && allowed {
                    pause();
                    continue;
                }
                // Say that we sleep, then look once more: a job published before that word is seen here, one published
                // after it sees the flag and wakes us.
                me.parked.store(true, SeqCst);
                let word = STATE.word.load(SeqCst);
                let job_waits = word & OPEN != 0 && word >> 32 != seen && me.index + 1 < THREADS.load(Relaxed);
                if !job_waits {
                    std::thread::park();
                }
                me.parked.store(false, SeqCst);
                spins = 0;
            };
            // SAFETY: we are counted in an open job, so its cell is not written until we leave.
            if let Some(job) = unsafe { *STATE.job.get() } {
                work(job);
            }
            seen = joined;
            STATE.word.fetch_sub(1, Release);
        }
    }

    fn pause() {
        for _ in 0..4 {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// The tests change the global thread count, so they take turns.
    static TURN: Mutex<()> = Mutex::new(());

    fn turn() -> std::sync::MutexGuard<'static, ()> {
        TURN.lock().unwrap_or_else(|e| e.into_inner())
    }

    #[test]
    fn shares_cover_everything_and_grow_smaller() {
        let _turn = turn();
        for n in [1, 2, 7] {
            set_threads(n);
            for (things, least) in [(0, 4), (1, 0), (5, 16), (1000, 1), (128_256, 14)] {
                let begins = shares(things, least);
                assert_eq!((begins[0], begins[begins.len() - 1]), (0, things));
                let sizes: Vec<usize> = begins.windows(2).map(|w| w[1] - w[0]).collect();
                assert!(sizes.is_sorted_by(|a, b| a >= b && *b > 0), "{n} threads: {sizes:?}");
                assert!(sizes.iter().rev().skip(1).all(|size| *size >= least), "only the last may be shorter");
            }
        }
        set_threads(0);
    }

    #[test]
    fn every_task_runs_exactly_once() {
        let _turn = turn();
        for n in [1, 2, 3, 7] {
            set_threads(n);
            for tasks in [0, 1, 2, 5, 64, 1000] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                parallel(tasks, &|i| {
                    counts[i].fetch_add(1, Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Relaxed) == 1), "{n} threads, {tasks} tasks");
            }
        }
        set_threads(0);
    }

    #[test]
    fn many_short_jobs_with_changing_thread_counts() {
        let _turn = turn();
        let sum = AtomicUsize::new(0);
        for round in 0..20_000 {
            if round % 500 == 0 {
                set_threads(1 + round / 500 % 4);
            }
            parallel(3, &|i| {
                sum.fetch_add(i + 1, Relaxed);
            });
        }
        set_threads(0);
        assert_eq!(sum.load(Relaxed), 20_000 * 6);
    }

    #[test]
    fn nested_and_concurrent_calls_finish() {
        let _turn = turn();
        set_threads(3);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..200 {
                        parallel(4, &|_| {
                            parallel(5, &|_| {
                                sum.fetch_add(1, Relaxed);
                            })
                        });
                    }
                });
            }
        });
        set_threads(0);
        assert_eq!(sum.load(Relaxed), 4 * 200 * 20);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_survives() {
        let _turn = turn();
        set_threads(2);
        for round in 0..50 {
            let result = std::panic::catch_unwind(|| {
                parallel(8, &|i| {
                    if i == round % 8 {
                        std::panic::resume_unwind(Box::new("task failed"));
                    }
                })
            });
            assert_eq!(result.unwrap_err().downcast_ref(), Some(&"task failed"));
            let sum = AtomicUsize::new(0);
            parallel(8, &|i| {
                sum.fetch_add(i, Relaxed);
            });
            assert_eq!(sum.load(Relaxed), 28);
        }
        set_threads(0);
    }

    #[test]
    fn chunks_cover_the_slice() {
        let _turn = turn();
        let mut data = vec![0u32; 103];
        parallel_chunks(&mut data, 10, &|i, part| part.iter_mut().for_each(|x| *x += 1 + i as u32));
        assert!(data.iter().enumerate().all(|(j, &x)| x == 1 + (j / 10) as u32));
    }
}
