use crate::ops::testing::{check_against_reference, noise};

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for shape in [vec![1], vec![3, 17], vec![50, 900]] {
        check_against_reference(
            &[noise(&shape, 1), noise(&shape, 2)],
            |t| t[0].mul_scalar(6.0)?.swiglu(&t[1]),
            |t| t[0].mul_scalar(6.0)?.swiglu_reference(&t[1]),
            1e-5,
        );
    }
    // Halves of one projection: strided views.
    check_against_reference(
        &[noise(&[5, 12], 3)],
        |t| t[0].narrow(1, 0, 6)?.swiglu(&t[0].narrow(1, 6, 6)?),
        |t| t[0].narrow(1, 0, 6)?.swiglu_reference(&t[0].narrow(1, 6, 6)?),
        1e-5,
    );
    assert!(noise(&[3, 4], 1).swiglu(&noise(&[4], 2)).is_err());
}
