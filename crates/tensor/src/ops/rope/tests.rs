use super::RopeStyle;
use crate::Tensor;
use crate::ops::testing::{check_against_reference, noise};

#[test]
fn equals_its_reference_in_values_and_gradients() {
    for style in [RopeStyle::Half, RopeStyle::Interleaved] {
        for (d, half) in [(8, 4), (10, 3), (64, 32), (2, 1)] {
            let angle = noise(&[5, half], 2).mul_scalar(3.0).unwrap();
            let (cos, sin) = (angle.cos().unwrap(), angle.sin().unwrap());
            check_against_reference(
                &[noise(&[2, 5, 3, d], 1)],
                |t| t[0].rope(&cos, &sin, style),
                |t| t[0].rope_reference(&cos, &sin, style),
                1e-6,
            );
        }
    }
    let (x, c): (Tensor, Tensor) = (noise(&[1, 5, 2, 8], 1), noise(&[4, 4], 2));
    assert!(x.rope(&c, &c, RopeStyle::Half).is_err());
}
