use crate::ops::testing::{check_against_reference, noise, of};

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for (ids, rows, d) in [(vec![2u32, 0, 2, 1, 2], 4, 7), (vec![0], 1, 1), (vec![1; 300], 3, 200)] {
        let m = ids.len();
        let ids = of(&ids, &[m]);
        check_against_reference(
            &[noise(&[m, d], 1), noise(&[m], 2)],
            |t| t[0].weighted_sum(&t[1], &ids, rows),
            |t| t[0].weighted_sum_reference(&t[1], &ids, rows),
            1e-5,
        );
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (x, weights, ids) = (noise(&[3, 2], 1), noise(&[3], 2), of(&[0u32, 5, 1], &[3]));
    assert_eq!(x.weighted_sum(&weights, &ids, 6).unwrap().shape(), [6, 2]);
    assert!(x.weighted_sum(&weights, &ids, 5).unwrap_err().to_string().contains('5'));
    assert!(x.weighted_sum(&noise(&[2], 2), &ids, 6).is_err());
    assert!(x.weighted_sum(&weights, &of(&[0u32], &[1]), 6).is_err());
}
