use super::ScanInputs;
use crate::ops::testing::{check_against_reference, difference, noise};
use crate::{Result, Tensor};

fn inputs(b: usize, t: usize, c: usize, n: usize) -> Vec<Tensor> {
    vec![
        noise(&[b, t, c], 1),
        noise(&[b, t, c], 2),
        noise(&[c, n], 3),
        noise(&[b, t, n], 4),
        noise(&[b, t, n], 5),
        noise(&[c], 6),
        noise(&[b, c, n], 7),
    ]
}

/// `Δ = softplus`, `A = −exp`, as the model computes them, so that the recurrence is stable.
fn scan(x: &[Tensor], reference: bool, state: bool) -> Result<(Tensor, Tensor)> {
    let (delta, a) = (x[1].softplus()?, x[2].exp()?.neg()?);
    let s = ScanInputs { delta: &delta, a: &a, b: &x[3], c: &x[4], d: state.then(|| &x[5]), h0: state.then(|| &x[6]) };
    if reference { x[0].selective_scan_reference(&s) } else { x[0].selective_scan(&s) }
}

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for (b, t, c, n) in [(1, 1, 1, 1), (2, 9, 5, 16), (1, 70, 20, 16), (2, 130, 3, 4), (1, 5, 33, 24)] {
        let x = inputs(b, t, c, n);
        check_against_reference(&x, |x| Ok(scan(x, false, true)?.0), |x| Ok(scan(x, true, true)?.0), 2e-5);
        check_against_reference(&x[..5], |x| Ok(scan(x, false, false)?.0), |x| Ok(scan(x, true, false)?.0), 2e-5);
        assert!(difference(&scan(&x, false, true).unwrap().1, &scan(&x, true, true).unwrap().1) < 1e-5);
    }
}

#[test]
fn pieces_with_their_state_equal_the_whole() {
    let x = inputs(1, 20, 7, 16);
    let (whole, last) = scan(&x, false, true).unwrap();
    let mut piece = x.clone();
    let mut at = 0;
    for len in [1, 12, 7] {
        for i in [0, 1, 3, 4] {
            piece[i] = x[i].narrow(1, at, len).unwrap();
        }
        let (y, h) = scan(&piece, false, true).unwrap();
        assert!(difference(&y, &whole.narrow(1, at, len).unwrap()) < 1e-6);
        piece[6] = h;
        at += len;
    }
    assert!(difference(&piece[6], &last) < 1e-6);
    assert!(
        scan(&inputs(1, 2, 3, 4)[..].iter().map(|t| t.t().unwrap_or(t.clone())).collect::<Vec<_>>(), false, true)
            .is_err()
    );
}
