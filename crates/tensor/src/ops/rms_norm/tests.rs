use crate::ops::testing::{check_against_reference, noise};

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for shape in [vec![1, 1], vec![3, 17], vec![2, 5, 320], vec![64]] {
        let d = *shape.last().unwrap();
        check_against_reference(
            &[noise(&shape, 1), noise(&[d], 2)],
            |t| t[0].rms_norm(&t[1], 1e-5),
            |t| t[0].rms_norm_reference(&t[1], 1e-5),
            1e-5,
        );
    }
    check_against_reference(
        &[noise(&[24, 6], 3), noise(&[24], 4)],
        |t| t[0].t()?.rms_norm(&t[1], 1e-6),
        |t| t[0].t()?.rms_norm_reference(&t[1], 1e-6),
        1e-5,
    );
    assert!(noise(&[3, 4], 1).rms_norm(&noise(&[3], 2), 1e-5).is_err());
}
