use crate::ops::testing::{check_against_reference, noise};

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for (shape, dim) in [(vec![4], 0), (vec![3, 17], 1), (vec![3, 17], 0), (vec![2, 70, 5], 1), (vec![2, 3, 300], 2)] {
        let x = [noise(&shape, 1).mul_scalar(8.0).unwrap()];
        check_against_reference(&x, |t| t[0].softmax(dim), |t| t[0].softmax_reference(dim), 1e-5);
        check_against_reference(&x, |t| t[0].log_softmax(dim), |t| t[0].log_softmax_reference(dim), 1e-5);
    }
    assert!(noise(&[3], 1).softmax(1).is_err());
}

#[test]
fn masked_scores_get_nothing() {
    let x = crate::Tensor::from_vec(vec![1.0f32, f32::NEG_INFINITY, 1.0], 3, &crate::Device::Cpu).unwrap();
    assert_eq!(x.softmax(0).unwrap().to_vec::<f32>().unwrap(), [0.5, 0.0, 0.5]);
}
