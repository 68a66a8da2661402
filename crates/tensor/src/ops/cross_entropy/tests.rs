use crate::ops::testing::{check_against_reference, noise};
use crate::{Device, Tensor};

fn targets(t: &[u32]) -> Tensor {
    Tensor::from_slice(t, t.len(), &Device::Cpu).unwrap()
}

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for (n, v) in [(1, 2), (5, 17), (70, 300)] {
        let t: Vec<u32> = (0..n).map(|i| if i % 4 == 3 { 999 } else { (i * 7 % v) as u32 }).collect();
        check_against_reference(
            &[noise(&[n, v], 1)],
            |x| x[0].mul_scalar(9.0)?.cross_entropy(&targets(&t), Some(999)),
            |x| x[0].mul_scalar(9.0)?.cross_entropy_reference(&targets(&t), Some(999)),
            1e-5,
        );
    }
}

#[test]
fn uniform_logits_cost_the_logarithm_of_the_vocabulary() {
    let x = Tensor::full([3, 10], 100.0, crate::DType::F32, &Device::Cpu).unwrap();
    let loss = x.cross_entropy(&targets(&[0, 5, 9]), None).unwrap().to_scalar::<f32>().unwrap();
    assert!((loss - 10f32.ln()).abs() < 1e-5);
    let e = x.cross_entropy(&targets(&[0, 5, 10]), None).unwrap_err().to_string();
    assert!(e.contains("target 10"), "{e}");
    assert_eq!(x.cross_entropy(&targets(&[7, 7, 7]), Some(7)).unwrap().to_scalar::<f32>().unwrap(), 0.0);
}
