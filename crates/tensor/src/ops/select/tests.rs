use crate::ops::testing::{check_grads, of, sample};
use crate::{DType, Device, Tensor};

#[test]
fn chooses_with_every_operand_broadcast() {
    let cond = of(&[1u8, 0, 1, 0, 0, 1], &[2, 3]).to_dtype(DType::Bool).unwrap();
    let a = of(&[10f32, 20.0], &[2, 1]);
    let b = of(&[1f32, 2.0, 3.0], &[3]);
    let y = cond.select(&a, &b).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [10.0, 2.0, 10.0, 1.0, 2.0, 20.0]);
    let y = cond.t().unwrap().select(&b.unsqueeze(1).unwrap(), &of(&[7f32], &[1])).unwrap();
    assert_eq!(y.to_vec::<f32>().unwrap(), [1.0, 7.0, 7.0, 7.0, 3.0, 3.0]);
    let one = of(&[1u8], &[]).to_dtype(DType::Bool).unwrap();
    assert_eq!(one.select(&of(&[5i64], &[]), &of(&[6i64], &[])).unwrap().to_scalar::<i64>().unwrap(), 5);
    assert_eq!(one.select(&cond, &cond).unwrap().dtype(), DType::Bool);
}

#[test]
fn large_choices_agree_with_the_plain_loop() {
    let n = 300 * 211;
    let c: Vec<u8> = (0..n).map(|i| (i * 7 % 3 == 0) as u8).collect();
    let cond = of(&c, &[300, 211]).to_dtype(DType::Bool).unwrap();
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let y = cond.select(&of(&a, &[300, 211]), &of(&[-1f32], &[1])).unwrap().to_vec::<f32>().unwrap();
    assert!(y.iter().enumerate().all(|(i, &v)| v == if c[i] != 0 { a[i] } else { -1.0 }));
}

#[test]
fn gradients_go_to_the_chosen() {
    let cond = of(&[1u8, 0, 1, 0, 0, 1], &[2, 3]).to_dtype(DType::Bool).unwrap();
    check_grads(&[sample(&[2, 1]), sample(&[3])], |x| cond.select(&x[0], &x[1]));
    check_grads(&[sample(&[3, 2])], |x| x[0].t()?.masked_fill(&cond, 3.0));
    // NaN that was not chosen does not reach the gradient.
    let x = of(&[f64::NAN, 2.0, 1.0], &[3]).requires_grad();
    let keep = of(&[0u8, 1, 1], &[3]).to_dtype(DType::Bool).unwrap();
    let y = keep.select(&x, &of(&[0f64], &[1])).unwrap().sum_all().unwrap();
    assert_eq!(y.backward().unwrap().get(&x).unwrap().to_vec::<f64>().unwrap(), [0.0, 1.0, 1.0]);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = Tensor::zeros([2, 3], DType::F32, &Device::Cpu).unwrap();
    let cond = Tensor::zeros([2, 3], DType::Bool, &Device::Cpu).unwrap();
    assert!(x.select(&x, &x).is_err());
    assert!(cond.select(&x, &x.to_dtype(DType::F64).unwrap()).is_err());
    assert!(cond.select(&x, &x.t().unwrap()).is_err());
    assert!(x.narrow(0, 0, 1).unwrap().masked_fill(&cond, 0.0).is_err());
    assert_eq!(
        cond.narrow(1, 0, 0)
            .unwrap()
            .select(&x.narrow(1, 0, 1).unwrap(), &x.narrow(1, 0, 1).unwrap())
            .unwrap()
            .elem_count(),
        0
    );
}
