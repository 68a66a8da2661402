use imaginal_kernels::{MatRef, MatRef64, gemm, gemm_batch, gemm_f64};

use crate::{Element, Layout, Result, Tensor};

/// Offsets of the matrices of a batch, with the step from one to the next where there is one.
struct Batch {
    offsets: Vec<usize>,
    step: Option<usize>,
}

fn batch(l: &Layout) -> Batch {
    let outer = l.dims().len() - 2;
    let mut offsets = vec![l.offset()];
    for (&d, &s) in l.dims()[..outer].iter().zip(l.strides()) {
        offsets = offsets.iter().flat_map(|&at| (0..d).map(move |i| at + i * s)).collect();
    }
    let step = match offsets[..] {
        [a, b, ..] if b >= a && offsets.windows(2).all(|w| w[1] >= w[0] && w[1] - w[0] == b - a) => Some(b - a),
        [_] => Some(0),
        _ => None,
    };
    Batch { offsets, step }
}

/// Sizes and the strides of rows and columns of the last two dimensions.
fn strides(t: &Tensor) -> (usize, usize) {
    let s = t.layout().strides();
    (s[s.len() - 2], s[s.len() - 1])
}

pub(super) fn f32(a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Result<Tensor> {
    let [.., m, n] = shape[..] else { unreachable!("ranks were checked") };
    let k = a.shape()[a.rank() - 1];
    let ((ars, acs), (brs, bcs)) = (strides(a), strides(b));
    let (x, y) = (a.cpu_storage::<f32>("matmul")?, b.cpu_storage::<f32>("matmul")?);
    Tensor::build::<f32>(shape, |out| {
        if k == 0 {
            out.fill(0.0);
        }
        if k == 0 || out.is_empty() {
            return Ok(());
        }
        let (ba, bb) = (batch(a.layout()), batch(b.layout()));
        let at = |o: usize| MatRef { data: &x[o..], rs: ars, cs: acs };
        let bt = |o: usize| MatRef { data: &y[o..], rs: brs, cs: bcs };
        match (ba.step, bb.step) {
            (Some(sa), Some(sb)) if ba.offsets.len() > 1 => gemm_batch(
                ba.offsets.len(),
                m,
                n,
                k,
                at(ba.offsets[0]),
                sa,
                bt(bb.offsets[0]),
                sb,
                out,
                m * n,
                n,
                false,
            ),
            _ => each(out, m * n, &ba, &bb, |c, oa, ob| gemm(m, n, k, at(oa), bt(ob), c, n, false)),
        }
        Ok(())
    })
}

pub(super) fn f64(a: &Tensor, b: &Tensor, shape: Vec<usize>) -> Result<Tensor> {
    let [.., m, n] = shape[..] else { unreachable!("ranks were checked") };
    let k = a.shape()[a.rank() - 1];
    let ((ars, acs), (brs, bcs)) = (strides(a), strides(b));
    let (x, y) = (a.cpu_storage::<f64>("matmul")?, b.cpu_storage::<f64>("matmul")?);
    Tensor::build::<f64>(shape, |out| {
        if k == 0 {
            out.fill(0.0);
        }
        if k == 0 || out.is_empty() {
            return Ok(());
        }
        each(out, m * n, &batch(a.layout()), &batch(b.layout()), |c, oa, ob| {
            let at = MatRef64 { data: &x[oa..], rs: ars, cs: acs };
            let bt = MatRef64 { data: &y[ob..], rs: brs, cs: bcs };
            gemm_f64(m, n, k, at, bt, c, n, false);
        });
        Ok(())
    })
}

fn each<T: Element>(out: &mut [T], size: usize, a: &Batch, b: &Batch, mut f: impl FnMut(&mut [T], usize, usize)) {
    for (c, (&oa, &ob)) in out.chunks_exact_mut(size).zip(a.offsets.iter().zip(&b.offsets)) {
        f(c, oa, ob);
    }
}
