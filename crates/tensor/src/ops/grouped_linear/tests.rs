use imaginal_numeric::Format;

use crate::ops::testing::{check_against_reference, difference, noise};
use crate::{Bytes, Packed, Tensor};

const COUNTS: [&[usize]; 4] = [&[3, 0, 5, 1], &[0, 0, 0, 9], &[1, 1, 1, 1], &[40, 2, 0, 7]];

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for counts in COUNTS {
        let m = counts.iter().sum();
        for (n, k) in [(7, 9), (33, 65)] {
            check_against_reference(
                &[noise(&[m, k], 1), noise(&[counts.len() * n, k], 2)],
                |t| t[0].grouped_linear(&t[1], counts),
                |t| t[0].grouped_linear_reference(&t[1], counts),
                1e-5,
            );
        }
    }
    let strided = [noise(&[6, 4], 4), noise(&[6, 10], 5)];
    check_against_reference(
        &strided,
        |t| t[0].t()?.grouped_linear(&t[1].t()?, &[3, 1]),
        |t| t[0].t()?.grouped_linear_reference(&t[1].t()?, &[3, 1]),
        1e-5,
    );
}

#[test]
fn packed_matrices_equal_their_values() {
    let (n, k) = (5, 64);
    for format in [Format::Q8_0, Format::F16] {
        for counts in COUNTS {
            let m = counts.iter().sum();
            let pack = |seed| {
                let w = noise(&[counts.len() * n, k], seed);
                let mut bytes = vec![0; format.bytes_for(k).unwrap() * counts.len() * n];
                format.encode(&w.to_vec::<f32>().unwrap(), &mut bytes).unwrap();
                Packed::new(format, counts.len() * n, k, Bytes::from_vec(bytes)).unwrap()
            };
            let (gate, up) = (pack(1), pack(2));
            let values = |w: &Packed| Tensor::from_packed(w).unwrap();
            check_against_reference(
                &[noise(&[m, k], 3)],
                |t| t[0].packed_grouped_linear(&gate, counts),
                |t| t[0].grouped_linear(&values(&gate), counts),
                1e-5,
            );
            let swiglu = |x: &Tensor| x.packed_grouped_swiglu(&gate, &up, counts);
            let composed =
                |x: &Tensor| x.grouped_linear(&values(&gate), counts)?.swiglu(&x.grouped_linear(&values(&up), counts)?);
            check_against_reference(&[noise(&[m, k], 4)], |t| swiglu(&t[0]), |t| composed(&t[0]), 1e-5);
            let x = noise(&[m, k], 5);
            assert!(difference(&swiglu(&x).unwrap(), &composed(&x).unwrap()) < 1e-5);
        }
    }
}

#[test]
fn groups_that_do_not_fit_are_errors() {
    let (x, w) = (noise(&[4, 3], 1), noise(&[10, 3], 2));
    assert_eq!(x.grouped_linear(&w, &[1, 3]).unwrap().shape(), [4, 5]);
    assert!(x.grouped_linear(&w, &[1, 2]).unwrap_err().to_string().contains("other than 4 rows"));
    assert!(x.grouped_linear(&w, &[1, 3, 0]).is_err());
    assert!(x.grouped_linear(&w, &[]).is_err());
    assert!(x.grouped_linear(&noise(&[10, 4], 2), &[1, 3]).is_err());
    assert!(x.grouped_linear(&w, &[usize::MAX, 5]).is_err());
}
