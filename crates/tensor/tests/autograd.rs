//! The tape: what is recorded, what is freed, and that gradients add up however a graph is shaped.

use imaginal_tensor::{DType, Device, Error, Result, Tensor, checkpoint, is_grad_enabled, no_grad};

fn t(values: &[f64], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

fn values(x: &Tensor) -> Vec<f64> {
    x.to_vec::<f64>().unwrap()
}

/// A block with parameters, a residual connection and something to recompute.
fn block(x: &[Tensor]) -> Result<Tensor> {
    let h = x[0].matmul(&x[1])?.silu()?;
    h.matmul(&x[1].t()?)?.add(&x[0])?.mul(&x[2])
}

fn operands() -> [Tensor; 3] {
    let v = |n: usize, m: usize| (0..n).map(|i| ((i * m) % 11) as f64 * 0.2 - 1.0).collect::<Vec<_>>();
    [t(&v(12, 5), &[3, 4]), t(&v(20, 7), &[4, 5]), t(&v(4, 3), &[4])].map(|x| x.requires_grad())
}

#[test]
fn checkpoint_gives_the_same_gradients() {
    let run = |recompute: bool, blocks: usize| -> (Vec<f64>, Vec<Vec<f64>>) {
        let p = operands();
        let mut x = p[0].clone();
        for _ in 0..blocks {
            x = match recompute {
                true => checkpoint(&[&x, &p[1], &p[2]], block).unwrap(),
                false => block(&[x, p[1].clone(), p[2].clone()]).unwrap(),
            };
        }
        let loss = x.sqr().unwrap().sum_all().unwrap();
        let grads = loss.backward().unwrap();
        assert_eq!(grads.len(), 3);
        (values(&loss), p.iter().map(|p| values(grads.get(p).unwrap())).collect())
    };
    assert_eq!(run(true, 1), run(false, 1));
    // Parameters that several blocks share are added up in another order: by block first.
    let ((loss, grads), (plain_loss, plain)) = (run(true, 3), run(false, 3));
    assert_eq!(loss, plain_loss);
    for (g, p) in grads.iter().flatten().zip(plain.iter().flatten()) {
        assert!((g - p).abs() <= 1e-12 * p.abs().max(1.0), "{g} {p}");
    }
}

#[test]
fn checkpoint_reaches_only_inputs_that_want_gradients() {
    let [x, w, s] = operands();
    let frozen = w.detach();
    let y = checkpoint(&[&x, &frozen, &s], block).unwrap().sum_all().unwrap();
    let grads = y.backward().unwrap();
    assert!(grads.get(&x).is_some() && grads.get(&s).is_some() && grads.len() == 2);
    // Without anything to train nothing is recorded.
    let y = checkpoint(&[&x.detach(), &frozen, &s.detach()], block).unwrap();
    assert!(!y.tracks_grad());
    // An error inside comes out, at once and in the backward pass.
    assert!(checkpoint(&[&x], |x| x[0].matmul(&x[0])).is_err());
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let y = checkpoint(&[&x], move |x| match calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
        0 => x[0].sum_all(),
        _ => Err(Error::argument("test", "the second run fails")),
    });
    assert!(y.unwrap().backward().is_err());
    assert!(is_grad_enabled());
}

#[test]
fn no_grad_records_nothing_and_is_left_by_a_panic() {
    let [x, w, _] = operands();
    let y = no_grad(|| {
        assert!(!is_grad_enabled());
        no_grad(|| x.matmul(&w)).unwrap().exp().unwrap()
    });
    assert!(!y.tracks_grad() && is_grad_enabled());
    assert!(y.sum_all().unwrap().backward().unwrap().is_empty());
    let caught = std::panic::catch_unwind(|| no_grad(|| std::panic::resume_unwind(Box::new(()))));
    assert!(caught.is_err() && is_grad_enabled());
}

#[test]
fn a_graph_of_a_hundred_thousand_steps_is_walked_and_dropped() {
    // A thread with a small stack: recursion over the graph would overflow it long before the end.
    let run = || {
        let x = t(&[1.0, 2.0], &[2]).requires_grad();
        let mut y = x.clone();
        for _ in 0..100_000 {
            y = y.add(&x).unwrap();
        }
        let grads = y.sum_all().unwrap().backward().unwrap();
        assert_eq!(values(grads.get(&x).unwrap()), [100_001.0; 2]);
        drop(y);
        // Dropped without a backward pass, and through an operation that saves its result.
        let mut y = x.clone();
        for _ in 0..100_000 {
            y = y.tanh().unwrap();
        }
        drop(y);
    };
    std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap().join().unwrap();
}

#[test]
fn shared_subexpressions_accumulate() {
    let x = t(&[0.5, -1.5, 2.0], &[3]).requires_grad();
    let s = x.exp().unwrap();
    // d/dx of s² + s·x + s = (2s + x + 1)·s + s
    let y = s.mul(&s).unwrap().add(&s.mul(&x).unwrap()).unwrap().add(&s).unwrap().sum_all().unwrap();
    let g = values(y.backward().unwrap().get(&x).unwrap());
    for (g, x) in g.iter().zip([0.5f64, -1.5, 2.0]) {
        let s = x.exp();
        assert!((g - ((2.0 * s + x + 1.0) * s + s)).abs() < 1e-12 * g.abs().max(1.0));
    }
    // A ladder of 2⁴⁰ paths takes 40 steps, not 2⁴⁰.
    let mut y = x.clone();
    for _ in 0..40 {
        y = y.add(&y).unwrap();
    }
    let g = values(y.sum_all().unwrap().backward().unwrap().get(&x).unwrap());
    assert_eq!(g, [2f64.powi(40); 3]);
}

#[test]
fn a_gradient_kept_by_the_caller_does_not_change() {
    let x = t(&[1.0, 2.0], &[2]).requires_grad();
    let seed = t(&[10.0, 20.0], &[2]);
    // The seed reaches x along two ways and is added up there.
    let grads = x.add(&x).unwrap().backward_with(seed.clone()).unwrap();
    assert_eq!(values(grads.get(&x).unwrap()), [20.0, 40.0]);
    assert_eq!(values(&seed), [10.0, 20.0]);
}

#[test]
fn leaves_are_told_apart_and_detached_paths_are_closed() {
    let x = t(&[2.0], &[1]).requires_grad();
    let again = x.requires_grad();
    let y = x.mul(&again).unwrap().mul(&x.detach()).unwrap();
    let grads = y.backward().unwrap();
    assert_eq!(values(grads.get(&x).unwrap()), [4.0]);
    assert_eq!(values(grads.get(&again).unwrap()), [4.0]);
    assert_eq!(grads.len(), 2);
    assert!(grads.get(&t(&[1.0], &[1])).is_none());
    // A leaf is its own gradient's end.
    assert_eq!(values(x.backward().unwrap().get(&x).unwrap()), [1.0]);
}

#[test]
fn wrong_seeds_are_errors() {
    let x = t(&[1.0, 2.0], &[2]).requires_grad();
    assert!(x.backward().is_err());
    assert!(x.backward_with(t(&[1.0], &[1])).is_err());
    assert!(Tensor::zeros([0], DType::F64, &Device::Cpu).unwrap().requires_grad().backward().is_err());
}
