//! Which instruction set kernels use, chosen at run time, and how a kernel is written once for all of them.
//!
//! # Writing a kernel
//! Write the body once, generic over a token `S: Simd`, inside `simd_fn!`. The macro makes a function with the
//! instruction set as its first argument; inside, the body is compiled once per set, each copy with the set's
//! instructions enabled, and called through one `match`.
//!
//! ```ignore
//! simd_fn! {
//!     /// dst[i] = a·x[i] + y[i].
//!     pub(crate) fn axpy<S>(s: S, a: f32, x: &[f32], y: &[f32], dst: &mut [f32]) {
//!         let a = s.splat(a);
//!         for ((d, x), y) in dst.chunks_mut(S::LANES).zip(x.chunks(S::LANES)).zip(y.chunks(S::LANES)) {
//!             // `*_partial` handles a short last chunk (missing lanes read as 0, are not written).
//!             let r = s.mul_add(a, s.load_partial(x), s.load_partial(y));
//!             s.store_partial(r, d);
//!         }
//!     }
//! }
//! axpy(isa(), 2.0, &x, &y, &mut z); // or, in a test, every member of `available()`
//! ```
//! Rules that keep the code fast:
//! * Helpers that take `s: S` must be `#[inline(always)]`, or they are compiled without the instructions.
//! * In hot loops avoid closures and iterator adapters with closures over `s`: they may end up not inlined, again without
//!   the instructions. `chunks_exact` with `load`/`store` on whole chunks and one partial tail is fastest.
//! * Plain Rust over slices is autovectorised inside a body too (f64 work, integer work); call `Simd::fma` for a fused
//!   scalar step, never `f32::mul_add` directly, which is a libm call where there is no FMA.
//! * Parallelism stays outside: call the `simd_fn!` inside the tasks of [`pool::parallel`](crate::pool::parallel).
//!
//! The scalar set works on `[f32; 8]` arrays, which the compiler turns into SSE2, NEON or wasm simd128 code; it never fuses
//! multiply and add, so it gives the same bits on every machine.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

pub(crate) use crate::simd::Simd;
#[cfg(target_arch = "aarch64")]
pub(crate) use crate::simd_aarch64::NeonToken;
#[cfg(target_arch = "x86_64")]
pub(crate) use crate::simd_x86::{Avx2Token, Avx512Token};

/// An instruction set that kernels are compiled for. Later ones include the earlier ones of the same architecture.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum Isa {
    /// What every CPU of the architecture has.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 with F, BW, DQ and VL besides all of [`Isa::Avx2`].
    Avx512,
    /// [`Isa::Avx512`] with VNNI: dot products of bytes.
    Avx512Vnni,
    /// [`Isa::Avx512Vnni`] with BF16 and the AMX tiles for it, which the operating system must grant (Linux does).
    Amx,
    /// aarch64, all of which have NEON.
    Neon,
    /// [`Isa::Neon`] with dot products of bytes.
    Dotprod,
    /// [`Isa::Dotprod`] with products of small matrices of bytes.
    I8mm,
}

impl Isa {
    /// The name that `IMAGINAL_ISA` takes and reports print.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Vnni => "avx512vnni",
            Isa::Amx => "amx",
            Isa::Neon => "neon",
            Isa::Dotprod => "dotprod",
            Isa::I8mm => "i8mm",
        }
    }

    /// The instruction set of that name.
    pub fn from_name(name: &str) -> Option<Isa> {
        ALL.into_iter().find(|i| i.name().eq_ignore_ascii_case(name))
    }

    /// f32 lanes of the set as kernels will use it here, the `LANES` of its token.
    pub(crate) fn lanes(self) -> usize {
        match self.usable() {
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => 16,
            Isa::Avx2 | Isa::Scalar | Isa::Neon | Isa::Dotprod | Isa::I8mm => 8,
        }
    }

    /// This set, or the best one below it that the CPU has: what makes calling a kernel for any `Isa` safe.
    pub(crate) fn usable(self) -> Isa {
        if self.is_of_this_architecture() { self.min(detected()) } else { Isa::Scalar }
    }

    /// This set without what multiplies narrower numbers than f32.
    pub(crate) fn in_f32(self) -> Isa {
        match self {
            Isa::Avx512Vnni | Isa::Amx => Isa::Avx512,
            Isa::Dotprod | Isa::I8mm => Isa::Neon,
            other => other,
        }
    }

    fn is_of_this_architecture(self) -> bool {
        match self {
            Isa::Scalar => true,
            Isa::Avx2 | Isa::Avx512 | Isa::Avx512Vnni | Isa::Amx => cfg!(target_arch = "x86_64"),
            Isa::Neon | Isa::Dotprod | Isa::I8mm => cfg!(target_arch = "aarch64"),
        }
    }
}

impl std::fmt::Display for Isa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

const ALL: [Isa; 8] =
    [Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Avx512Vnni, Isa::Amx, Isa::Neon, Isa::Dotprod, Isa::I8mm];

/// The sets that a CPU of this architecture may have, weakest first.
fn of_this_architecture() -> impl Iterator<Item = Isa> {
    ALL.into_iter().filter(|i| i.is_of_this_architecture())
}

/// How the instruction set in use came about; see [`choice`].
#[derive(Clone, Debug)]
pub struct Choice {
    /// What kernels use.
    pub isa: Isa,
    /// The best that the CPU has.
    pub detected: Isa,
    /// Set when `IMAGINAL_ISA` asked for something that could not be given; programs should show it.
    pub warning: Option<String>,
}

/// The instruction set that kernels use, decided on the first call: the best that the CPU has, or what the environment
/// variable `IMAGINAL_ISA` (`scalar`, `avx2`, `avx512`, `avx512vnni`, `amx`; on aarch64 `scalar`, `neon`, `dotprod`, `i8mm`) says
/// if the CPU has that.
pub fn choice() -> &'static Choice {
    static CHOICE: OnceLock<Choice> = OnceLock::new();
    CHOICE.get_or_init(|| choose(std::env::var("IMAGINAL_ISA").ok().as_deref(), detected()))
}

/// The instruction set that kernels use: `choice().isa`.
pub fn isa() -> Isa {
    choice().isa
}

/// Every instruction set that this CPU has, weakest first.
pub fn available() -> impl Iterator<Item = Isa> {
    of_this_architecture().filter(|i| *i <= detected())
}

fn choose(wish: Option<&str>, detected: Isa) -> Choice {
    let names = || of_this_architecture().map(Isa::name).collect::<Vec<_>>().join(", ");
    let (isa, warning) = match wish {
        None | Some("") => (detected, None),
        Some(name) => match Isa::from_name(name) {
            Some(i) if i <= detected && i.is_of_this_architecture() => (i, None),
            Some(i) => (detected, Some(format!("IMAGINAL_ISA={i}: this CPU does not have it; using {detected}"))),
            None => (
                detected,
                Some(format!("IMAGINAL_ISA={name}: no such instruction set (one of {}); using {detected}", names())),
            ),
        },
    };
    Choice { isa, detected, warning }
}

/// The best instruction set that the CPU has.
pub fn detected() -> Isa {
    const UNKNOWN: u8 = u8::MAX;
    static DETECTED: AtomicU8 = AtomicU8::new(UNKNOWN);
    match DETECTED.load(Relaxed) {
        UNKNOWN => {
            let isa = detect();
            DETECTED.store(isa as u8, Relaxed);
            isa
        }
        i => ALL[i as usize],
    }
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    let vnni = is_x86_feature_detected!("avx512vnni");
    match (avx2, avx512) {
        (true, true) if vnni && crate::amx::granted() => Isa::Amx,
        (true, true) if vnni => Isa::Avx512Vnni,
        (true, true) => Isa::Avx512,
        (true, false) => Isa::Avx2,
        _ => Isa::Scalar,
    }
}

#[cfg(target_arch = "aarch64")]
fn detect() -> Isa {
    match (std::arch::is_aarch64_feature_detected!("dotprod"), std::arch::is_aarch64_feature_detected!("i8mm")) {
        (true, true) => Isa::I8mm,
        (true, false) => Isa::Dotprod,
        _ => Isa::Neon,
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detect() -> Isa {
    Isa::Scalar
}

/// Defines a function that is compiled once per instruction set; see the [module](self).
///
/// `fn name<S>(s: S, args…) -> R { body }` becomes `fn name(isa: Isa, args…) -> R`. Lifetimes of reference arguments must
/// be elidable; further type parameters are not supported.
macro_rules! simd_fn {
    ($(
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$S:ident>($s:ident: $_S:ident $(, $arg:ident: $ty:ty)* $(,)?) $(-> $ret:ty)? $body:block
    )+) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name(isa: $crate::isa::Isa $(, $arg: $ty)*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<$S: $crate::isa::Simd>($s: $S $(, $arg: $ty)*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function runs only where its features exist.
                body(unsafe { $crate::isa::Avx2Token::new() } $(, $arg)*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                // SAFETY: this function runs only where its features exist.
                body(unsafe { $crate::isa::Avx512Token::new() } $(, $arg)*)
            }

            match isa.usable() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `usable` is never more than the CPU was found to have.
                $crate::isa::Isa::Avx512 | $crate::isa::Isa::Avx512Vnni | $crate::isa::Isa::Amx => unsafe {
                    avx512($($arg),*)
                },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::isa::Isa::Avx2 => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                $crate::isa::Isa::Neon | $crate::isa::Isa::Dotprod | $crate::isa::Isa::I8mm => body($crate::isa::NeonToken $(, $arg)*),
                _ => body($crate::simd::ScalarToken $(, $arg)*),
            }
        }
    )+};
}
pub(crate) use simd_fn;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_may_lower_but_not_raise() {
        // The weakest set above the scalar one, and one that is more.
        #[cfg(target_arch = "x86_64")]
        let (some, more) = (Isa::Avx2, "avx512");
        #[cfg(target_arch = "aarch64")]
        let (some, more) = (Isa::Neon, "dotprod");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let (some, more) = (Isa::Scalar, "neon");
        assert_eq!(choose(None, some).isa, some);
        let lower = choose(Some("Scalar"), some);
        assert_eq!((lower.isa, lower.warning), (Isa::Scalar, None));
        let elsewhere = ALL.into_iter().find(|i| !i.is_of_this_architecture()).unwrap();
        for raise in [more, elsewhere.name()] {
            let raise = choose(Some(raise), some);
            assert_eq!(raise.isa, some);
            assert!(raise.warning.unwrap().contains("does not have it"));
        }
        let unknown = choose(Some("sse9"), some);
        assert_eq!(unknown.isa, some);
        assert!(unknown.warning.unwrap().contains("(one of scalar"));
    }

    #[test]
    fn a_set_of_another_architecture_is_the_scalar_one() {
        for i in ALL {
            assert!(available().any(|a| a == i.usable()), "{i}");
            assert!(i.is_of_this_architecture() || i.usable() == Isa::Scalar, "{i}");
            assert!(i.in_f32() <= i);
        }
    }

    #[test]
    fn names_round_trip() {
        for i in ALL {
            assert_eq!(Isa::from_name(i.name()), Some(i));
        }
    }
}
