//! Advice to the operating system about memory.

/// Asks for large pages behind `len` bytes at `start`, which the caller has allocated and not yet written. Walks over
/// panels and tensors of megabytes otherwise miss the TLB at every page. Does nothing where there is no such advice, or
/// for ranges that hold no large page; nothing is promised.
pub fn prefer_large_pages(start: *const u8, len: usize) {
    const LARGE: usize = 2 << 20;
    if len >= LARGE {
        advise(start, len);
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn advise(start: *const u8, len: usize) {
    const MADVISE: i64 = 28;
    const MADV_HUGEPAGE: i64 = 14;
    const PAGE: usize = 4096;
    let first = (start as usize).next_multiple_of(PAGE);
    let end = (start as usize + len) / PAGE * PAGE;
    if first >= end {
        return;
    }
    // SAFETY: the advice changes no contents and no access rights; a range that is not mapped makes it fail. The call
    // clobbers rcx and r11.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") MADVISE => _, in("rdi") first, in("rsi") end - first,
            in("rdx") MADV_HUGEPAGE, out("rcx") _, out("r11") _, options(nostack));
    }
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn advise(_: *const u8, _: usize) {}
