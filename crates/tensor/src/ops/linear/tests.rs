use crate::ops::testing::{check_against_reference, noise};
use crate::{Device, Tensor};

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for (lead, n, k) in [(vec![5], 7, 9), (vec![2, 3], 33, 17), (vec![], 4, 3), (vec![40], 65, 70)] {
        let shape: Vec<usize> = lead.iter().copied().chain([k]).collect();
        let inputs = [noise(&shape, 1), noise(&[n, k], 2), noise(&[n], 3)];
        check_against_reference(
            &inputs,
            |t| t[0].linear(&t[1], Some(&t[2])),
            |t| t[0].linear_reference(&t[1], Some(&t[2])),
            1e-5,
        );
        check_against_reference(
            &inputs[..2],
            |t| t[0].linear(&t[1], None),
            |t| t[0].linear_reference(&t[1], None),
            1e-5,
        );
    }
}

#[test]
fn takes_strided_operands() {
    let (x, w) = (noise(&[6, 4], 4), noise(&[6, 5], 5));
    check_against_reference(
        &[x, w],
        |t| t[0].t()?.linear(&t[1].t()?, None),
        |t| t[0].t()?.linear_reference(&t[1].t()?, None),
        1e-5,
    );
}

#[test]
fn wrong_shapes_are_errors() {
    let x = noise(&[3, 4], 1);
    assert!(x.linear(&noise(&[5, 3], 2), None).is_err());
    assert!(x.linear(&noise(&[5], 2), None).is_err());
    assert!(x.linear(&noise(&[5, 4], 2), Some(&noise(&[4], 3))).is_err());
    let none = Tensor::from_slice::<f32>(&[], [0, 4], &Device::Cpu).unwrap();
    assert_eq!(none.linear(&noise(&[5, 4], 2), None).unwrap().shape(), [0, 5]);
}
