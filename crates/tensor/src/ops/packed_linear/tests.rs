use imaginal_numeric::Format;

use crate::ops::testing::{difference, noise};
use crate::{Bytes, Device, Packed, Tensor};

fn pack(t: &Tensor, format: Format) -> Packed {
    let (rows, cols) = (t.shape()[0], t.shape()[1]);
    let mut bytes = vec![0; format.bytes_for(cols).unwrap() * rows];
    format.encode(&t.to_vec::<f32>().unwrap(), &mut bytes).unwrap();
    Packed::new(format, rows, cols, Bytes::from_vec(bytes)).unwrap()
}

#[test]
fn equals_the_product_with_the_decoded_weights() {
    for format in [Format::Q8_0, Format::Q4_0, Format::F16, Format::BF16, Format::F32] {
        let w = pack(&noise(&[37, 64], 1), format);
        let expanded = Tensor::from_packed(&w).unwrap();
        for m in [1, 3, 8, 50] {
            let x = noise(&[m, 64], 2).requires_grad();
            let bias = noise(&[37], 3);
            let got = x.packed_linear(&w, Some(&bias)).unwrap();
            let expected = x.linear(&expanded, Some(&bias)).unwrap();
            assert!(difference(&got, &expected) < 1e-5, "{} m={m}", format.name());
            let weights = noise(&[m, 37], 4);
            let grad = |y: &Tensor| y.mul(&weights).unwrap().sum_all().unwrap().backward().unwrap().remove(&x).unwrap();
            assert!(difference(&grad(&got), &grad(&expected)) < 1e-5);
        }
        let ids = Tensor::from_vec(vec![3u32, 0, 36], 3, &Device::Cpu).unwrap();
        let rows = Tensor::packed_rows(&w, &ids).unwrap();
        assert_eq!(rows.to_vec::<f32>().unwrap(), expanded.index_select(0, &ids).unwrap().to_vec::<f32>().unwrap());
        let ids = Tensor::from_vec(vec![37u32], 1, &Device::Cpu).unwrap();
        assert!(Tensor::packed_rows(&w, &ids).unwrap_err().to_string().contains("37"));
    }
}

#[test]
fn products_with_several_matrices_are_those_with_each() {
    // Large enough that activations are rounded; formats that want them alike, and that do not.
    for formats in
        [[Format::Q4_0; 3], [Format::Q4_K, Format::Q4_K, Format::Q6_K], [Format::Q8_0, Format::F32, Format::F16]]
    {
        let rows = [1024, 600, 1];
        let w: Vec<_> =
            formats.iter().zip(rows).map(|(f, rows)| pack(&noise(&[rows, 1024], rows as u64), *f)).collect();
        let w = [&w[0], &w[1], &w[2]];
        for m in [1, 2, 8, 9] {
            let x = noise(&[m, 1, 1024], 2);
            for x in [x.clone(), x.requires_grad()] {
                let all = x.packed_linears(w).unwrap();
                for (y, w) in all.iter().zip(w) {
                    let one = x.packed_linear(w, None).unwrap();
                    assert_eq!(y.shape(), one.shape());
                    assert_eq!(y.to_vec::<f32>().unwrap(), one.to_vec::<f32>().unwrap(), "{formats:?}, {m} tokens");
                    assert_eq!(y.tracks_grad(), x.tracks_grad());
                }
            }
        }
        assert!(noise(&[1, 1, 512], 2).packed_linears(w).is_err());
        let none = Packed::new(formats[1], 0, 1024, Bytes::from_vec(Vec::new())).unwrap();
        let [all, nothing] = noise(&[3, 1024], 2).packed_linears([w[0], &none]).unwrap();
        assert_eq!((all.shape(), nothing.shape()), (&[3, 1024][..], &[3, 0][..]));
    }
}

#[test]
fn bytes_must_be_as_many_as_the_matrix_takes() {
    assert!(Packed::new(Format::Q8_0, 2, 33, Bytes::from_vec(vec![0; 68])).is_err());
    assert!(Packed::new(Format::Q8_0, 2, 32, Bytes::from_vec(vec![0; 67])).is_err());
    assert!(Packed::new(Format::Q8_0, usize::MAX, 32, Bytes::from_vec(vec![0; 67])).is_err());
}
