//! The functions themselves, one vector at a time. Bounds are in units in the last place (ulp) of the f32 result, found by
//! comparing with f64 (see the tests); where a set has no FMA they are one half to one ulp wider.

use crate::isa::Simd;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
// ln 2 in two parts; n·LN2_HI is exact for |n| < 2^14 even without FMA.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;
const ROUND: f32 = 12_582_912.0; // 1.5·2^23: adding it rounds to an integer

/// Horner's rule over the coefficients, lowest first.
macro_rules! poly {
    ($s:ident, $x:expr, $c0:expr $(, $c:expr)+) => {{
        let x = $x;
        poly!(@rev $s, x, [$c0] $($c),+)
    }};
    (@rev $s:ident, $x:ident, [$($done:expr),+] $next:expr $(, $rest:expr)*) => {
        poly!(@rev $s, $x, [$next, $($done),+] $($rest),*)
    };
    (@rev $s:ident, $x:ident, [$top:expr $(, $c:expr)*]) => {{
        let mut p = $s.splat($top);
        $( p = $s.mul_add(p, $x, $s.splat($c)); )*
        p
    }};
}

/// eˣ for x that needs no care: about −104 to 89.
#[inline(always)]
fn exp_core<S: Simd>(s: S, x: S::F) -> S::F {
    let n = s.sub(s.mul_add(x, s.splat(LOG2_E), s.splat(ROUND)), s.splat(ROUND));
    let r = s.neg_mul_add(n, s.splat(LN2_HI), x);
    let r = s.neg_mul_add(n, s.splat(LN2_LO), r);
    let q = poly!(s, r, 0.499_999_93, 0.166_665_15, 0.041_668_46, 0.008_369_42, 0.001_381_309_4);
    let p = s.add(s.mul_add(s.mul(r, r), q, r), s.splat(1.0));
    s.ldexp(p, n)
}

/// eˣ for x ≤ 89: the form for softmax. At most 1.5 ulp; 0 below −87.3, where the result would be subnormal, which costs
/// CPUs a hundred cycles. NaN stays.
#[inline(always)]
pub(crate) fn exp_fast<S: Simd>(s: S, x: S::F) -> S::F {
    const LEAST: f32 = -87.3;
    let y = exp_core(s, s.max(s.splat(LEAST), x));
    s.select(s.lt(x, s.splat(LEAST)), s.zero(), y)
}

/// 2ˣ for x ≤ 127: the form for decays. Relative error at most 2.5e-7; 0 below −126. NaN stays.
#[inline(always)]
pub(crate) fn exp2_fast<S: Simd>(s: S, x: S::F) -> S::F {
    const LEAST: f32 = -126.0;
    let clamped = s.max(s.splat(LEAST), x);
    let n = s.sub(s.add(clamped, s.splat(ROUND)), s.splat(ROUND));
    let r = s.sub(clamped, n); // exact
    let q = poly!(s, r, std::f32::consts::LN_2, 0.240_222_81, 0.055_505_59, 0.009_669_793, 0.001_330_052_9);
    let y = s.ldexp(s.mul_add(q, r, s.splat(1.0)), n);
    s.select(s.lt(x, s.splat(LEAST)), s.zero(), y)
}

/// eˣ. At most 1.5 ulp where the result is normal; overflows to +∞, underflows through the subnormals to 0; NaN stays.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // `min` and `max` hand on their second argument when one is NaN.
    exp_core(s, s.max(s.splat(-110.0), s.min(s.splat(90.0), x)))
}

/// ln(1 + f) + e·ln 2 for f in [√½ − 1, √2 − 1].
#[inline(always)]
fn log_core<S: Simd>(s: S, f: S::F, e: S::F) -> S::F {
    let p = poly!(
        s,
        f,
        0.333_333_3,
        -0.250_008_26,
        0.200_012_36,
        -0.166_231_44,
        0.142_013_7,
        -0.131_620_05,
        0.127_654_33,
        -0.076_343_92
    );
    let f2 = s.mul(f, f);
    // f − f²/2 + f³·p, small terms first.
    let t = s.mul_add(s.mul(f2, f), p, s.mul(e, s.splat(LN2_LO)));
    let t = s.neg_mul_add(f2, s.splat(0.5), t);
    s.mul_add(e, s.splat(LN2_HI), s.add(t, f))
}

/// ln x. At most 2 ulp; ln 0 = −∞, NaN for negative x, ln ∞ = ∞.
#[inline(always)]
pub(crate) fn log<S: Simd>(s: S, x: S::F) -> S::F {
    let tiny = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let scaled = s.select(tiny, s.mul(x, s.splat(8_388_608.0)), x);
    // The exponent such that what remains lies in [√½, √2).
    let bits = s.bits(scaled);
    let e = s.shr_i::<23>(s.sub_i(bits, s.splat_i(std::f32::consts::FRAC_1_SQRT_2.to_bits() as i32)));
    let m = s.from_bits(s.sub_i(bits, s.shl_i::<23>(e)));
    let e = s.add(s.to_f(e), s.select(tiny, s.splat(-23.0), s.zero()));
    let y = log_core(s, s.sub(m, s.splat(1.0)), e);
    let y = s.select(s.eq(x, s.zero()), s.splat(f32::NEG_INFINITY), y);
    let y = s.select(s.lt(x, s.zero()), s.splat(f32::NAN), y);
    // ∞ and NaN are their own logarithms.
    s.select(s.lt(x, s.splat(f32::INFINITY)), y, x_or_nan(s, x, y))
}

/// `x` where it is +∞ or NaN; `y` (already −∞ or NaN) elsewhere.
#[inline(always)]
fn x_or_nan<S: Simd>(s: S, x: S::F, y: S::F) -> S::F {
    s.select(s.le(x, s.splat(0.0)), y, x)
}

/// ln(1 + u) for u in [0, 1]. At most 2 ulp.
#[inline(always)]
pub(crate) fn log1p_unit<S: Simd>(s: S, u: S::F) -> S::F {
    // (1 + u)/2 − 1 = (u − 1)/2, so that 1 + u is never rounded.
    let small = s.le(u, s.splat(std::f32::consts::SQRT_2 - 1.0));
    let f = s.select(small, u, s.mul(s.sub(u, s.splat(1.0)), s.splat(0.5)));
    let e = s.select(small, s.zero(), s.splat(1.0));
    log_core(s, f, e)
}

/// 1/(1 + e⁻ˣ). At most 3 ulp, on both sides of 0.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let e = exp(s, s.neg(s.abs(x)));
    let r = s.div(s.splat(1.0), s.add(s.splat(1.0), e));
    s.select(s.lt(x, s.zero()), s.mul(e, r), r)
}

/// tanh x. At most 3 ulp.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let a = s.abs(x);
    let z = s.mul(x, x);
    let p = poly!(s, z, -0.333_332_7, 0.133_310_92, -0.053_709_66, 0.020_538_82, -0.005_591_01);
    let small = s.mul_add(s.mul(p, z), x, x);
    let e = exp(s, s.add(a, a));
    let big = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    let big = s.select(s.lt(x, s.zero()), s.neg(big), big);
    s.select(s.lt(a, s.splat(0.625)), small, big)
}

/// softplus x = ln(1 + eˣ). At most 3 ulp; equal to x above 20, as in PyTorch.
#[inline(always)]
pub(crate) fn softplus<S: Simd>(s: S, x: S::F) -> S::F {
    let u = exp(s, s.neg(s.abs(x)));
    s.add(s.max(s.zero(), x), log1p_unit(s, u))
}

/// erfc z for z ≥ 0, relative error at most 1.2e-7·(1 + z²) (rational-exponent form of Numerical Recipes, §6.2).
#[inline(always)]
fn erfc_positive<S: Simd>(s: S, z: S::F) -> S::F {
    let t = s.div(s.splat(1.0), s.mul_add(z, s.splat(0.5), s.splat(1.0)));
    let p = poly!(
        s,
        t,
        -1.265_512_2,
        1.000_023_7,
        0.374_091_96,
        0.096_784_18,
        -0.186_288_06,
        0.278_868_07,
        -1.135_204,
        1.488_515_9,
        -0.822_152_23,
        0.170_872_77
    );
    s.mul(t, exp(s, s.neg_mul_add(z, z, p)))
}

/// The normal distribution function Φ(x) = (1 + erf(x/√2))/2. Relative error at most 4e-7·(1 + x²).
#[inline(always)]
pub(crate) fn normal_cdf<S: Simd>(s: S, x: S::F) -> S::F {
    let q = s.mul(s.splat(0.5), erfc_positive(s, s.mul(s.abs(x), s.splat(std::f32::consts::FRAC_1_SQRT_2))));
    let r = s.select(s.lt(x, s.zero()), q, s.sub(s.splat(1.0), q));
    s.select(s.eq(x, x), r, x)
}

/// e^(−x²/2)/√(2π), the derivative of [`normal_cdf`].
#[inline(always)]
pub(crate) fn normal_pdf<S: Simd>(s: S, x: S::F) -> S::F {
    const FRAC_1_SQRT_2PI: f32 = 0.398_942_3;
    s.mul(s.splat(FRAC_1_SQRT_2PI), exp(s, s.mul(s.mul(x, x), s.splat(-0.5))))
}
