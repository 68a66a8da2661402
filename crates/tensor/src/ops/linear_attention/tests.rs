use super::chunk;
use super::{HeadOrder, LinearAttentionInputs};
use crate::ops::testing::{check_against_reference, check_grads, difference, noise};
use crate::{DType, Result, Tensor, no_grad};

/// The kinds of recurrence: a decay for each key element, the delta rule.
const KINDS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// Queries, keys, values, and what decay, β and the state are made of.
fn inputs([b, t, g, h, k, v]: [usize; 6], per_key: bool) -> Vec<Tensor> {
    let decay = if per_key { vec![b, t, h, k] } else { vec![b, t, h] };
    let keys = noise(&[b, t, g, k], 2).mul_scalar(1.5 / (k as f64).sqrt()).unwrap();
    vec![
        noise(&[b, t, g, k], 1),
        keys,
        noise(&[b, t, h, v], 3),
        noise(&decay, 4),
        noise(&[b, h, k, v], 5),
        noise(&[b, t, h], 6),
    ]
}

enum Form {
    Fused,
    Chunked,
    Reference,
}

fn run(x: &[Tensor], delta: bool, order: HeadOrder, form: &Form) -> Result<(Tensor, Tensor)> {
    // Decays from nearly none to e^−6 a step.
    let decay = x[3].mul_scalar(3.0)?.exp()?.mul_scalar(-0.3)?;
    let beta = x.get(5).filter(|_| delta).map(|b| b.sigmoid()).transpose()?;
    let s = LinearAttentionInputs { k: &x[1], v: &x[2], decay: &decay, beta: beta.as_ref(), state: Some(&x[4]), order };
    match form {
        Form::Fused => x[0].linear_attention(&s),
        Form::Reference => x[0].linear_attention_reference(&s),
        Form::Chunked => {
            let (inputs, sizes) = x[0].check_linear_attention(&s)?;
            chunk::forward(&inputs, sizes)
        }
    }
}

const SIZES: [[usize; 6]; 6] = [
    [1, 1, 1, 1, 1, 1],
    [2, 5, 2, 4, 3, 5],
    [1, 33, 1, 3, 16, 20],
    [2, 64, 2, 2, 8, 4],
    [1, 70, 2, 6, 4, 33],
    [1, 200, 1, 2, 6, 6],
];

#[test]
fn every_form_equals_the_reference_in_values_and_gradients() {
    for (per_key, delta) in KINDS {
        for (i, sizes) in SIZES.into_iter().enumerate() {
            let order = [HeadOrder::Grouped, HeadOrder::Tiled][i % 2];
            let x = inputs(sizes, per_key);
            let x = &x[..5 + delta as usize];
            let of = |form: Form| move |x: &[Tensor]| Ok(run(x, delta, order, &form)?.0);
            check_against_reference(x, of(Form::Fused), of(Form::Reference), 2e-5);
            check_against_reference(x, of(Form::Chunked), of(Form::Reference), 2e-5);
            let last = |form| no_grad(|| run(x, delta, order, &form)).unwrap().1;
            assert!(difference(&last(Form::Fused), &last(Form::Reference)) < 2e-5);
            assert!(difference(&last(Form::Chunked), &last(Form::Reference)) < 2e-5);
        }
    }
}

#[test]
fn gradients_match_central_differences() {
    for (per_key, delta) in KINDS {
        let x: Vec<Tensor> =
            inputs([1, 19, 1, 2, 3, 2], per_key).iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
        check_grads(&x[..5 + delta as usize], |x| Ok(run(x, delta, HeadOrder::Grouped, &Form::Fused)?.0));
    }
}

#[test]
fn pieces_with_their_state_equal_the_whole() {
    for (per_key, delta) in KINDS {
        let x = inputs([2, 150, 1, 2, 8, 6], per_key);
        let (whole, last) = run(&x, delta, HeadOrder::Grouped, &Form::Fused).unwrap();
        for form in [Form::Fused, Form::Chunked] {
            let mut piece = x.clone();
            let mut at = 0;
            for len in [1, 1, 90, 30, 28] {
                for i in [0, 1, 2, 3, 5] {
                    piece[i] = x[i].narrow(1, at, len).unwrap();
                }
                let (y, h) = run(&piece, delta, HeadOrder::Grouped, &form).unwrap();
                assert!(difference(&y, &whole.narrow(1, at, len).unwrap()) < 1e-5);
                piece[4] = h;
                at += len;
            }
            assert!(difference(&piece[4], &last) < 1e-5);
        }
    }
}

/// Equal keys, full step sizes and no decay are the hardest case of the triangular system: powers of it grow beyond all bounds.
/// Decays that erase everything are the hardest of the sums.
#[test]
fn hard_decays_and_equal_keys_are_exact() {
    let (b, t, h, k, v) = (1, 96, 2, 4, 3);
    let keys = Tensor::full([b, t, h, k], 0.5, DType::F32, &crate::Device::Cpu).unwrap();
    let beta = Tensor::ones([b, t, h], DType::F32, &crate::Device::Cpu).unwrap();
    let (q, values) = (noise(&[b, t, h, k], 1), noise(&[b, t, h, v], 2));
    for rate in [0.0, -0.001, -50.0, -1000.0] {
        for shape in [vec![b, t, h], vec![b, t, h, k]] {
            let decay = Tensor::full(shape, rate, DType::F32, &crate::Device::Cpu).unwrap();
            let s = LinearAttentionInputs {
                k: &keys,
                v: &values,
                decay: &decay,
                beta: Some(&beta),
                state: None,
                order: HeadOrder::Grouped,
            };
            let expected = q.linear_attention_reference(&s).unwrap().0;
            let (inputs, sizes) = q.check_linear_attention(&s).unwrap();
            assert!(difference(&chunk::forward(&inputs, sizes).unwrap().0, &expected) < 1e-5);
            assert!(difference(&q.linear_attention(&s).unwrap().0, &expected) < 1e-5);
        }
    }
}

#[test]
fn wrong_inputs_are_errors() {
    let x = inputs([1, 4, 2, 4, 3, 5], false);
    let with = |i: usize, other: Tensor| {
        let mut x = x.clone();
        x[i] = other;
        run(&x, true, HeadOrder::Grouped, &Form::Fused).map(drop)
    };
    assert!(with(0, noise(&[1, 4, 2, 3], 1)).is_ok());
    for (i, shape) in [
        (0, vec![1, 4, 2, 4]),
        (1, vec![1, 4, 1, 3]),
        (2, vec![1, 4, 3, 5]),
        (2, vec![4, 4, 5]),
        (3, vec![1, 4, 2]),
        (3, vec![1, 4, 4, 5]),
        (4, vec![1, 4, 5, 3]),
        (5, vec![1, 4, 4, 1]),
    ] {
        assert!(with(i, noise(&shape, 1)).is_err(), "{i} {shape:?}");
    }
}
