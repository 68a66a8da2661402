use super::AdamW;
use crate::{Device, Tensor};

fn settings(step: u64) -> AdamW {
    AdamW { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, step, grad_scale: 1.0 }
}

fn tensor(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).unwrap()
}

#[test]
fn the_first_step_is_the_learning_rate_along_the_sign() {
    let mut p = tensor(&[1.0, 2.0, 3.0]);
    let (mut m, mut v) = (tensor(&[0.0; 3]), tensor(&[0.0; 3]));
    p.adamw_step(&tensor(&[0.5, -20.0, 0.0]), &mut m, &mut v, &settings(1)).unwrap();
    let moved = p.to_vec::<f32>().unwrap();
    assert!(moved.iter().zip([0.9, 2.1, 3.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{moved:?}");
}

#[test]
fn changes_in_place_alone_and_a_copy_where_somebody_looks() {
    let mut p = tensor(&[1.0, 2.0]);
    let (mut m, mut v) = (tensor(&[0.0; 2]), tensor(&[0.0; 2]));
    let address = p.as_slice::<f32>().unwrap().as_ptr();
    p.adamw_step(&tensor(&[1.0, 1.0]), &mut m, &mut v, &settings(1)).unwrap();
    assert_eq!(p.as_slice::<f32>().unwrap().as_ptr(), address);
    let seen = p.clone();
    let before = seen.to_vec::<f32>().unwrap();
    p.adamw_step(&tensor(&[1.0, 1.0]), &mut m, &mut v, &settings(2)).unwrap();
    assert_eq!(seen.to_vec::<f32>().unwrap(), before);
    assert_ne!(p.to_vec::<f32>().unwrap(), before);
}

#[test]
fn works_on_a_leaf_and_refuses_other_shapes() {
    let mut p = tensor(&[1.0, 2.0]).requires_grad();
    let (mut m, mut v) = (tensor(&[0.0; 2]), tensor(&[0.0; 2]));
    let mut grads = p.mul(&p).unwrap().sum_all().unwrap().backward().unwrap();
    let grad = grads.remove(&p).unwrap();
    p.adamw_step(&grad, &mut m, &mut v, &settings(1)).unwrap();
    assert!(p.to_vec::<f32>().unwrap()[0] < 1.0);
    assert!(p.adamw_step(&tensor(&[1.0]), &mut m, &mut v, &settings(2)).is_err());
}
