use crate::ops::testing::{check_against_reference, noise};

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for shape in [vec![1, 2], vec![3, 17], vec![2, 5, 384], vec![64]] {
        let d = *shape.last().unwrap();
        check_against_reference(
            &[noise(&shape, 1), noise(&[d], 2), noise(&[d], 3)],
            |t| t[0].layer_norm(&t[1], Some(&t[2]), 1e-3),
            |t| t[0].layer_norm_reference(&t[1], Some(&t[2]), 1e-3),
            2e-5,
        );
        check_against_reference(
            &[noise(&shape, 1), noise(&[d], 2)],
            |t| t[0].layer_norm(&t[1], None, 1e-3),
            |t| t[0].layer_norm_reference(&t[1], None, 1e-3),
            2e-5,
        );
    }
    check_against_reference(
        &[noise(&[24, 6], 3), noise(&[24], 4), noise(&[24], 5)],
        |t| t[0].t()?.layer_norm(&t[1], Some(&t[2]), 1e-3),
        |t| t[0].t()?.layer_norm_reference(&t[1], Some(&t[2]), 1e-3),
        2e-5,
    );
    assert!(noise(&[3, 4], 1).layer_norm(&noise(&[3], 2), None, 1e-5).is_err());
    assert!(noise(&[3, 4], 1).layer_norm(&noise(&[4], 2), Some(&noise(&[3], 2)), 1e-5).is_err());
}
