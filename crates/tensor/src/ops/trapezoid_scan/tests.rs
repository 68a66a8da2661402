use super::{TrapezoidInputs, chunked};
use crate::ops::testing::{check_against_reference, difference, noise};
use crate::{Result, Tensor};

/// q, k, v, decay, now, before, memory, last key, last value.
fn inputs([b, t, h, r, n, p]: [usize; 6]) -> Vec<Tensor> {
    let gate = |i| noise(&[b, t, h], i);
    let mut all = vec![noise(&[b, t, h, r, n], 1), noise(&[b, t, h, r, n], 2), noise(&[b, t, h, r, p], 3)];
    all.extend([gate(4), gate(5), gate(6)]);
    all.extend([noise(&[b, h, n, p], 7), noise(&[b, h, r, n], 8), noise(&[b, h, r, p], 9)]);
    all
}

fn run(x: &[Tensor], reference: bool) -> Result<(Tensor, [Tensor; 3])> {
    let log_decay = x[3].mul_scalar(4.0)?.exp()?.neg()?;
    let state = Some([&x[6], &x[7], &x[8]]);
    let inputs = TrapezoidInputs { k: &x[1], v: &x[2], log_decay: &log_decay, now: &x[4], before: &x[5], state };
    match reference {
        true => x[0].trapezoid_scan_reference(&inputs),
        false => chunked::forward(&x[0], &inputs, x[0].check_trapezoid(&inputs)?),
    }
}

const SIZES: [[usize; 6]; 4] = [[1, 1, 1, 1, 1, 1], [2, 9, 2, 1, 5, 3], [1, 70, 2, 2, 8, 4], [1, 40, 1, 3, 4, 6]];

#[test]
fn chunks_equal_the_steps() {
    for sizes in SIZES {
        let x = inputs(sizes);
        let ((y, s), (y2, s2)) = (run(&x, true).unwrap(), run(&x, false).unwrap());
        assert!(difference(&y2, &y) < 1e-5, "{sizes:?}: {}", difference(&y2, &y));
        s.iter().zip(&s2).for_each(|(a, b)| assert!(difference(b, a) < 1e-5, "{sizes:?}"));
    }
}

#[test]
fn gradients_equal_those_of_the_steps() {
    for sizes in SIZES {
        check_against_reference(&inputs(sizes), |x| Ok(run(x, false)?.0), |x| Ok(run(x, true)?.0), 2e-5);
    }
}

#[test]
fn pieces_with_their_state_equal_the_whole() {
    let x = inputs([2, 50, 2, 2, 4, 4]);
    let (whole, last) = run(&x, false).unwrap();
    let mut piece = x.clone();
    let mut at = 0;
    for (len, reference) in [(1, true), (40, false), (9, false)] {
        (0..6).for_each(|i| piece[i] = x[i].narrow(1, at, len).unwrap());
        let (y, s) = run(&piece, reference).unwrap();
        assert!(difference(&y, &whole.narrow(1, at, len).unwrap()) < 1e-5);
        piece[6..].clone_from_slice(&s);
        at += len;
    }
    last.iter().zip(&piece[6..]).for_each(|(a, b)| assert!(difference(b, a) < 1e-5));
    let mut bad = x.clone();
    bad[4] = x[4].narrow(1, 0, 3).unwrap();
    assert!(run(&bad, true).is_err());
}
