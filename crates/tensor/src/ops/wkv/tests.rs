use super::{WkvInputs, chunked};
use crate::ops::testing::{check_against_reference, difference, noise};
use crate::{Device, Result, Tensor, no_grad};

type Forms = (bool, bool);
/// RWKV-6, RWKV-7 and what neither is.
const FORMS: [Forms; 4] = [(true, false), (false, true), (false, false), (true, true)];

/// r, decay, k, v, a, c, s0, bonus; decays have logarithms of about `−depth`.
fn inputs([b, t, h, k, v]: [usize; 5]) -> Vec<Tensor> {
    let scale = |x: Tensor| x.mul_scalar((3.0 / k as f64).sqrt()).unwrap();
    vec![
        noise(&[b, t, h, k], 1),
        noise(&[b, t, h, k], 2),
        noise(&[b, t, h, k], 3),
        noise(&[b, t, h, v], 4),
        scale(noise(&[b, t, h, k], 5)),
        scale(noise(&[b, t, h, k], 6)),
        noise(&[b, h, k, v], 7),
        noise(&[h, k], 8),
    ]
}

#[derive(Clone, Copy)]
enum Way {
    Kernel,
    Chunked,
    Steps,
}

/// `log_decay = −e^(depth·x)`, as RWKV-6 computes it.
fn run(x: &[Tensor], depth: f64, (bonus, correction): Forms, way: Way) -> Result<(Tensor, Tensor)> {
    let w = x[1].mul_scalar(depth)?.exp()?.neg()?;
    let inputs = WkvInputs {
        log_decay: &w,
        k: &x[2],
        v: &x[3],
        bonus: bonus.then(|| &x[7]),
        correction: correction.then(|| (&x[4], &x[5])),
        s0: Some(&x[6]),
    };
    match way {
        Way::Kernel => no_grad(|| x[0].wkv(&inputs)),
        Way::Chunked => chunked::forward(&x[0], &inputs, x[0].check_wkv(&inputs)?.1),
        Way::Steps => x[0].wkv_reference(&inputs),
    }
}

#[test]
fn chunks_and_kernel_equal_the_steps() {
    for sizes in [[1, 1, 1, 1, 1], [2, 9, 2, 5, 3], [1, 33, 2, 8, 16], [1, 100, 1, 64, 64], [2, 64, 1, 4, 40]] {
        let x = inputs(sizes);
        // e^4 = 55: decays of e^−55 next to decays of nearly 1.
        for (form, depth) in FORMS.into_iter().flat_map(|f| [(f, 1.0), (f, 4.0)]) {
            let (y, s) = run(&x, depth, form, Way::Steps).unwrap();
            for way in [Way::Kernel, Way::Chunked] {
                let (y2, s2) = run(&x, depth, form, way).unwrap();
                let (dy, ds) = (difference(&y2, &y), difference(&s2, &s));
                assert!(dy < 2e-5 && ds < 2e-5, "{sizes:?} {form:?} {depth}: {dy} {ds}");
            }
        }
    }
}

#[test]
fn gradients_equal_those_of_the_steps() {
    for sizes in [[1, 2, 1, 2, 1], [2, 9, 2, 5, 3], [1, 40, 2, 8, 16]] {
        for (form, depth) in FORMS.into_iter().flat_map(|f| [(f, 1.0), (f, 4.0)]) {
            // Inputs that the form does not have carry no gradient.
            let all = inputs(sizes);
            let used: Vec<usize> = (0..8).filter(|&i| (form.0 || i != 7) && (form.1 || i != 4 && i != 5)).collect();
            let some: Vec<Tensor> = used.iter().map(|&i| all[i].clone()).collect();
            let with = |x: &[Tensor], way| {
                let mut full = all.clone();
                used.iter().zip(x).for_each(|(&i, x)| full[i] = x.clone());
                Ok(run(&full, depth, form, way)?.0)
            };
            check_against_reference(&some, |x| with(x, Way::Chunked), |x| with(x, Way::Steps), 2e-5);
        }
    }
}

#[test]
fn pieces_with_their_state_equal_the_whole() {
    let x = inputs([1, 50, 2, 8, 8]);
    for form in FORMS {
        let (whole, last) = run(&x, 1.0, form, Way::Chunked).unwrap();
        let mut piece = x.clone();
        let mut at = 0;
        for (len, way) in [(1, Way::Kernel), (40, Way::Chunked), (9, Way::Kernel)] {
            (0..6).for_each(|i| piece[i] = x[i].narrow(1, at, len).unwrap());
            let (y, s) = run(&piece, 1.0, form, way).unwrap();
            assert!(difference(&y, &whole.narrow(1, at, len).unwrap()) < 1e-5);
            piece[6] = s;
            at += len;
        }
        assert!(difference(&piece[6], &last) < 1e-5);
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let x = inputs([1, 3, 2, 4, 5]);
    for (wrong, form) in
        [(1, (false, false)), (2, (false, false)), (6, (false, false)), (4, (false, true)), (7, (true, false))]
    {
        let mut bad = x.clone();
        bad[wrong] = Tensor::zeros([1, 2], crate::DType::F32, &Device::Cpu).unwrap();
        assert!(run(&bad, 1.0, form, Way::Kernel).is_err(), "{wrong}");
    }
}
