use crate::ops::testing::{check_against_reference, difference, noise};
use crate::{Result, Tensor};

/// Gates, mixing, state.
fn inputs([b, t, h, d]: [usize; 4]) -> Vec<Tensor> {
    let s = noise(&[b, 4, h, d], 3);
    // n is above zero where something is remembered.
    let n = s.narrow(1, 2, 1).unwrap().abs().unwrap().add_scalar(0.5).unwrap();
    let state = Tensor::cat(&[s.narrow(1, 0, 2).unwrap(), n, s.narrow(1, 3, 1).unwrap()], 1).unwrap();
    let gates = noise(&[b, t, h, 4, d], 1).mul_scalar(3.0).unwrap();
    vec![gates, noise(&[h, d, 4, d], 2).mul_scalar(0.5).unwrap(), state]
}

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for sizes in [[1, 2, 1, 1], [2, 9, 2, 5], [1, 40, 3, 16]] {
        let x = inputs(sizes);
        let m = x[2].narrow(1, 3, 1).unwrap();
        // m counts as a constant.
        let state = |x: &[Tensor]| Tensor::cat(&[&x[2].narrow(1, 0, 3)?, &m], 1);
        type Form = fn(&Tensor, &Tensor, Option<&Tensor>) -> Result<(Tensor, Tensor)>;
        let (fused, reference): (Form, Form) = (Tensor::slstm, Tensor::slstm_reference);
        let with = |x: &[Tensor], f: Form| Ok(f(&x[0], &x[1], Some(&state(x)?))?.0);
        check_against_reference(&x, |x| with(x, fused), |x| with(x, reference), 2e-5);
        let without = |x: &[Tensor], f: Form| Ok(f(&x[0], &x[1], None)?.0);
        check_against_reference(&x[..2], |x| without(x, fused), |x| without(x, reference), 2e-5);
        let last = |f: Form| f(&x[0], &x[1], Some(&x[2])).unwrap().1;
        assert!(difference(&last(fused), &last(reference)) < 1e-5);
    }
}

#[test]
fn pieces_with_their_state_equal_the_whole() {
    let x = inputs([2, 20, 2, 8]);
    let (whole, last) = x[0].slstm(&x[1], None).unwrap();
    let (a, state) = x[0].narrow(1, 0, 1).unwrap().slstm(&x[1], None).unwrap();
    let (b, state) = x[0].narrow(1, 1, 19).unwrap().slstm(&x[1], Some(&state)).unwrap();
    assert_eq!(difference(&Tensor::cat(&[a, b], 1).unwrap(), &whole), 0.0);
    assert_eq!(difference(&state, &last), 0.0);
    assert!(x[0].slstm(&x[2], None).is_err());
    assert!(x[0].narrow(3, 0, 3).unwrap().slstm(&x[1], None).is_err());
}
