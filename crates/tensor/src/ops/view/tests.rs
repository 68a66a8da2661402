use crate::{Device, Tensor};

fn iota(shape: &[usize]) -> Tensor {
    let n = shape.iter().product::<usize>();
    Tensor::from_vec((0..n).map(|i| i as f32).collect(), shape, &Device::Cpu).unwrap()
}

#[test]
fn permuted_views_read_back_in_order() {
    let x = iota(&[2, 3, 4]);
    let y = x.permute(&[2, 0, 1]).unwrap();
    let expected: Vec<f32> =
        (0..4).flat_map(|k| (0..2).flat_map(move |i| (0..3).map(move |j| (i * 12 + j * 4 + k) as f32))).collect();
    assert_eq!(y.to_vec::<f32>().unwrap(), expected);
    assert_eq!(y.reshape([4, 6]).unwrap().to_vec::<f32>().unwrap(), expected);
    assert!(x.permute(&[0, 1]).is_err() && x.permute(&[0, 0, 1]).is_err());
}

#[test]
fn large_strided_copies_agree_with_small_ones() {
    let x = iota(&[300, 70, 5]);
    let y = x.transpose(0, 1).unwrap().narrow(2, 1, 3).unwrap();
    let all = y.to_vec::<f32>().unwrap();
    for (i, v) in all.iter().enumerate() {
        let (a, b, c) = (i / 900, i / 3 % 300, i % 3);
        assert_eq!(*v, (b * 350 + a * 5 + c + 1) as f32);
    }
}

#[test]
fn copy_into_writes_in_place_only_when_unshared() {
    let mut x = Tensor::zeros([3, 4], crate::DType::F32, &Device::Cpu).unwrap();
    let before = x.clone();
    x.copy_into(1, 1, &iota(&[2, 3]).t().unwrap()).unwrap();
    assert_eq!(before.to_vec::<f32>().unwrap(), [0.0; 12]);
    assert_eq!(x.to_vec::<f32>().unwrap(), [0., 0., 3., 0., 0., 1., 4., 0., 0., 2., 5., 0.]);
    let at = x.as_slice::<f32>().unwrap().as_ptr();
    x.copy_into(0, 2, &iota(&[1, 4])).unwrap();
    assert_eq!(x.as_slice::<f32>().unwrap().as_ptr(), at);
    assert!(x.copy_into(0, 3, &iota(&[1, 4])).is_err());
    assert!(x.copy_into(0, 0, &iota(&[1, 3])).is_err());
}

#[test]
fn gradients_flow_through_views() {
    let x = iota(&[2, 3, 4]).requires_grad();
    let y = x.narrow(1, 1, 2).unwrap().transpose(0, 2).unwrap().unsqueeze(0).unwrap().squeeze(0).unwrap();
    let w = iota(&[4, 2, 2]);
    let loss = y.mul(&w).unwrap().sum_all().unwrap();
    let g = loss.backward().unwrap().get(&x).unwrap().to_vec::<f32>().unwrap();
    for (i, v) in g.iter().enumerate() {
        let (a, b, c) = (i / 12, i / 4 % 3, i % 4);
        let expected = if b == 0 { 0.0 } else { (c * 4 + (b - 1) * 2 + a) as f32 };
        assert_eq!(*v, expected);
    }
    let b = iota(&[3, 1]).requires_grad();
    let g = b.broadcast_as([2, 3, 4]).unwrap().mul(&iota(&[2, 3, 4])).unwrap().sum_all().unwrap();
    let sums: Vec<f32> = (0..3).map(|r| (0..8).map(|i| ((i / 4) * 12 + r * 4 + i % 4) as f32).sum()).collect();
    assert_eq!(g.backward().unwrap().get(&b).unwrap().to_vec::<f32>().unwrap(), sums);
}
