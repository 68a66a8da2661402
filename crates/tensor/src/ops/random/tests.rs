use imaginal_kernels::pool;

use super::Philox;
use crate::ops::testing::{check_grads, sample};
use crate::{DType, Device, Tensor};

const CPU: &Device = &Device::Cpu;

#[test]
fn philox_gives_the_published_words() {
    // Known answers of the reference implementation (Random123, kat_vectors): counter, key, words.
    assert_eq!(Philox::new(0).block(0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(Philox::new(u64::MAX).block(u128::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let counter = 0x0370_7344_1319_8a2e_85a3_08d3_243f_6a88;
    assert_eq!(Philox::new(0x299f_31d0_a409_3822).block(counter), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

#[test]
fn an_element_depends_on_seed_and_place_only() {
    let draw = |n: usize| -> Vec<Vec<f64>> {
        [
            Tensor::rand(n, -1.0, 2.0, DType::F32, 7, CPU),
            Tensor::randn(n, 0.0, 1.0, DType::F64, 7, CPU),
            Tensor::randint(n, -5, 100, DType::I64, 7, CPU),
            Tensor::bernoulli(n, 0.3, 7, CPU),
        ]
        .map(|t| t.unwrap().to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap())
        .into()
    };
    let long = draw(200_001);
    for (long, short) in long.iter().zip(draw(1001)) {
        assert!(long[..1001] == short);
    }
    let before = pool::threads();
    pool::set_threads(5);
    let same = draw(200_001) == long;
    pool::set_threads(before);
    assert!(same);
    assert_ne!(
        Tensor::rand(9, 0.0, 1.0, DType::F32, 7, CPU).unwrap().to_vec::<f32>().unwrap(),
        Tensor::rand(9, 0.0, 1.0, DType::F32, 8, CPU).unwrap().to_vec::<f32>().unwrap()
    );
}

/// Mean, variance, and the mean of fourth powers in units of the squared variance.
fn moments(v: &[f64]) -> (f64, f64, f64) {
    let n = v.len() as f64;
    let mean = v.iter().sum::<f64>() / n;
    let var = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, var, v.iter().map(|x| (x - mean).powi(4)).sum::<f64>() / n / (var * var))
}

#[test]
fn distributions_have_their_moments() {
    let n = 200_000;
    for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
        let read = |t: Tensor| t.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
        let u = read(Tensor::rand(n, -2.0, 4.0, dtype, 1, CPU).unwrap());
        assert!(u.iter().all(|x| (-2.0..=4.0).contains(x)));
        let (mean, var, fourth) = moments(&u);
        assert!(
            (mean - 1.0).abs() < 0.02 && (var - 3.0).abs() < 0.03 && (fourth - 1.8).abs() < 0.02,
            "{mean} {var} {fourth}"
        );
        let z = read(Tensor::randn(n, 3.0, 0.5, dtype, 2, CPU).unwrap());
        let (mean, var, fourth) = moments(&z);
        assert!(
            (mean - 3.0).abs() < 0.01 && (var - 0.25).abs() < 0.005 && (fourth - 3.0).abs() < 0.1,
            "{mean} {var} {fourth}"
        );
        // Neighbours, which Box and Muller make together, are not correlated.
        let together = z.chunks(2).map(|p| (p[0] - mean) * (p[1] - mean)).sum::<f64>() / (n / 2) as f64;
        assert!(together.abs() < 0.005, "{together}");
    }
    let b = Tensor::bernoulli(n, 0.3, 3, CPU).unwrap();
    assert_eq!(b.dtype(), DType::Bool);
    let share = b.to_vec::<u8>().unwrap().iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
    assert!((share - 0.3).abs() < 0.005, "{share}");
    assert!(Tensor::bernoulli(99, 0.0, 3, CPU).unwrap().to_vec::<u8>().unwrap().iter().all(|&x| x == 0));
    assert!(Tensor::bernoulli(99, 1.0, 3, CPU).unwrap().to_vec::<u8>().unwrap().iter().all(|&x| x == 1));
}

#[test]
fn whole_numbers_fill_their_range_evenly() {
    for dtype in [DType::I64, DType::I32, DType::F32, DType::BF16] {
        let v = Tensor::randint(70_000, -3, 4, dtype, 5, CPU)
            .unwrap()
            .to_dtype(DType::I64)
            .unwrap()
            .to_vec::<i64>()
            .unwrap();
        for x in -3..4 {
            let count = v.iter().filter(|&&y| y == x).count();
            assert!((9_600..10_400).contains(&count), "{dtype} {x}: {count}");
        }
        assert!(v.iter().all(|x| (-3..4).contains(x)));
    }
    let wide = Tensor::randint(1000, i64::MIN, i64::MAX, DType::I64, 5, CPU).unwrap().to_vec::<i64>().unwrap();
    assert!(wide.iter().any(|&x| x < i64::MIN / 2) && wide.iter().any(|&x| x > i64::MAX / 2));
    assert!(wide.iter().any(|&x| x % 1024 != 0));
}

#[test]
fn permutations_hold_every_number_once() {
    let v = Tensor::randperm(1000, 4, CPU).unwrap().to_vec::<u32>().unwrap();
    let mut sorted = v.clone();
    sorted.sort_unstable();
    assert!(sorted.iter().copied().eq(0..1000));
    assert!(v.iter().zip(0u32..).filter(|&(&a, b)| a == b).count() < 10);
    assert_eq!(Tensor::randperm(0, 4, CPU).unwrap().elem_count(), 0);
}

#[test]
fn dropout_drops_in_the_gradient_what_it_drops_in_the_value() {
    check_grads(&[sample(&[6, 7])], |x| x[0].t()?.dropout(0.4, 11));
    let x = Tensor::ones(100_000, DType::F32, CPU).unwrap();
    let y = x.dropout(0.25, 3).unwrap().to_vec::<f32>().unwrap();
    assert!(y.iter().all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6));
    assert!((y.iter().map(|&v| f64::from(v)).sum::<f64>() / 1e5 - 1.0).abs() < 0.01);
    assert_eq!(x.dropout(0.0, 3).unwrap().id(), x.id());
}

#[test]
fn senseless_arguments_are_errors() {
    assert!(Tensor::rand(3, 0.0, f64::INFINITY, DType::F32, 0, CPU).is_err());
    assert!(Tensor::rand(3, 0.0, 1.0, DType::I32, 0, CPU).is_err());
    assert!(Tensor::randn([usize::MAX, 4], 0.0, 1.0, DType::F32, 0, CPU).is_err());
    assert!(Tensor::randn(3, f64::NAN, 1.0, DType::F32, 0, CPU).is_err());
    assert!(Tensor::randint(3, 4, 4, DType::I64, 0, CPU).is_err());
    assert!(Tensor::randint(3, -1, 4, DType::U8, 0, CPU).is_err());
    assert!(Tensor::randint(3, 0, 1000, DType::BF16, 0, CPU).is_err());
    assert!(Tensor::bernoulli(3, 1.5, 0, CPU).is_err() && Tensor::bernoulli(3, f64::NAN, 0, CPU).is_err());
    assert!(sample(&[2]).dropout(1.0, 0).is_err());
    assert!(sample(&[2]).to_dtype(DType::I32).unwrap().dropout(0.5, 0).is_err());
    assert_eq!(Tensor::randn([0, 3], 0.0, 1.0, DType::F32, 0, CPU).unwrap().shape(), [0, 3]);
}
