//! Chains of views against an oracle: a list that says which element of the first tensor lies where.

use imaginal_tensor::{DType, Device, Result, Tensor};
use proptest::prelude::*;

/// A row-major array of places in the first tensor.
#[derive(Clone, Debug)]
struct Oracle {
    shape: Vec<usize>,
    places: Vec<usize>,
}

impl Oracle {
    fn new(shape: &[usize]) -> Self {
        Oracle { shape: shape.to_vec(), places: (0..shape.iter().product()).collect() }
    }

    /// An array of another shape whose elements come from where `from` says.
    fn build(&self, shape: Vec<usize>, from: impl Fn(&[usize]) -> Vec<usize>) -> Self {
        let n: usize = shape.iter().product();
        let places = (0..n)
            .map(|mut k| {
                let mut index = vec![0; shape.len()];
                for (i, &d) in index.iter_mut().zip(&shape).rev() {
                    *i = k % d;
                    k /= d;
                }
                let source = from(&index);
                self.places[source.iter().zip(&self.shape).fold(0, |at, (&i, &d)| at * d + i)]
            })
            .collect();
        Oracle { shape, places }
    }
}

/// One step of a chain; numbers are reduced to what fits when it is taken.
#[derive(Clone, Debug)]
enum Step {
    Permute(u64),
    Narrow(usize, usize, usize),
    Reshape(u64),
    Unsqueeze(usize),
    Squeeze(usize),
    Broadcast(usize, usize),
    Contiguous,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<u64>().prop_map(Step::Permute),
        (0..9usize, 0..9usize, 0..9usize).prop_map(|(d, s, n)| Step::Narrow(d, s, n)),
        any::<u64>().prop_map(Step::Reshape),
        (0..9usize).prop_map(Step::Unsqueeze),
        (0..9usize).prop_map(Step::Squeeze),
        (0..9usize, 1..4usize).prop_map(|(d, n)| Step::Broadcast(d, n)),
        Just(Step::Contiguous),
    ]
}

/// A permutation of `0 .. n` by a number.
fn shuffle(n: usize, mut by: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, (by % (i as u64 + 1)) as usize);
        by /= i as u64 + 1;
    }
    order
}

/// A shape of as many elements, by a number.
fn reshaped(count: usize, mut by: u64) -> Vec<usize> {
    let mut shape = Vec::new();
    let mut left = count;
    while left > 1 && shape.len() < 4 {
        let divisors: Vec<usize> = (1..=left).filter(|d| left.is_multiple_of(*d)).collect();
        let d = divisors[(by % divisors.len() as u64) as usize];
        by /= divisors.len() as u64;
        shape.push(d);
        left /= d;
    }
    shape.push(left);
    shape
}

fn take(x: &Tensor, o: &Oracle, step: &Step) -> Result<(Tensor, Oracle)> {
    let rank = o.shape.len();
    Ok(match *step {
        Step::Permute(by) => {
            let order = shuffle(rank, by);
            let shape = order.iter().map(|&d| o.shape[d]).collect();
            let moved = o.build(shape, |index| {
                let mut from = vec![0; rank];
                order.iter().zip(index).for_each(|(&d, &i)| from[d] = i);
                from
            });
            (x.permute(&order)?, moved)
        }
        Step::Narrow(d, s, n) if rank > 0 => {
            let d = d % rank;
            let start = s % (o.shape[d] + 1);
            let len = n % (o.shape[d] - start + 1);
            let mut shape = o.shape.clone();
            shape[d] = len;
            let part = o.build(shape, |index| {
                let mut from = index.to_vec();
                from[d] += start;
                from
            });
            (x.narrow(d, start, len)?, part)
        }
        Step::Reshape(by) => {
            let shape = if o.places.is_empty() { vec![2, 0] } else { reshaped(o.places.len(), by) };
            (x.reshape(&shape)?, Oracle { shape, places: o.places.clone() })
        }
        Step::Unsqueeze(d) if rank < 6 => {
            let d = d % (rank + 1);
            let mut shape = o.shape.clone();
            shape.insert(d, 1);
            (x.unsqueeze(d)?, Oracle { shape, places: o.places.clone() })
        }
        Step::Squeeze(d) if o.shape.contains(&1) => {
            let ones: Vec<usize> = (0..rank).filter(|&i| o.shape[i] == 1).collect();
            let d = ones[d % ones.len()];
            let mut shape = o.shape.clone();
            shape.remove(d);
            (x.squeeze(d)?, Oracle { shape, places: o.places.clone() })
        }
        Step::Broadcast(d, n) if o.places.len() < 2000 => {
            let mut shape = o.shape.clone();
            match shape.iter().position(|&s| s == 1) {
                Some(one) if d % 2 == 0 => shape[one] = n,
                _ if rank < 6 => shape.insert(0, n),
                _ => return Ok((x.clone(), o.clone())),
            }
            let lead = shape.len() - rank;
            let wide = o.build(shape.clone(), |index| {
                index[lead..].iter().zip(&o.shape).map(|(&i, &d)| if d == 1 { 0 } else { i }).collect()
            });
            (x.broadcast_as(&shape)?, wide)
        }
        Step::Contiguous => (x.contiguous()?, o.clone()),
        _ => (x.clone(), o.clone()),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chains_of_views_agree_with_the_oracle(
        shape in prop::collection::vec(1..6usize, 0..4),
        steps in prop::collection::vec(step(), 0..9),
    ) {
        let mut oracle = Oracle::new(&shape);
        let n = oracle.places.len();
        let leaf = Tensor::from_vec((0..n).map(|i| i as f64).collect(), &shape, &Device::Cpu).unwrap().requires_grad();
        let mut x = leaf.clone();
        for step in &steps {
            let (next, expected) = take(&x, &oracle, step).unwrap();
            prop_assert_eq!(next.shape(), &expected.shape[..], "{:?}", step);
            prop_assert_eq!(next.elem_count(), expected.places.len());
            (x, oracle) = (next, expected);
        }
        let read = x.to_vec::<f64>().unwrap();
        prop_assert!(read.iter().zip(&oracle.places).all(|(&v, &p)| v == p as f64), "{:?} {:?}", read, oracle);
        prop_assert_eq!(read.len(), oracle.places.len());

        // An operation sees the same elements as a reader, and the gradient finds its way back.
        let twice = x.mul_scalar(2.0).unwrap().to_vec::<f64>().unwrap();
        prop_assert!(twice.iter().zip(&oracle.places).all(|(&v, &p)| v == 2.0 * p as f64));
        let weights: Vec<f64> = (0..read.len()).map(|i| (i % 7) as f64 + 1.0).collect();
        let mut expected = vec![0.0; n];
        oracle.places.iter().zip(&weights).for_each(|(&p, w)| expected[p] += w);
        let w = Tensor::from_slice(&weights, x.shape(), &Device::Cpu).unwrap();
        let grads = x.mul(&w).unwrap().sum_all().unwrap().backward().unwrap();
        prop_assert_eq!(grads.get(&leaf).unwrap().to_vec::<f64>().unwrap(), expected);
    }
}

#[test]
fn shapes_beyond_counting_are_errors() {
    let cpu = &Device::Cpu;
    let huge = usize::MAX / 2;
    for shape in [[huge, 3, 1], [0, huge, 3], [huge, 3, 0]] {
        assert!(Tensor::zeros(shape, DType::U8, cpu).is_err(), "{shape:?}");
        assert!(Tensor::zeros([1, 1, 1], DType::U8, cpu).unwrap().broadcast_as(shape).is_err(), "{shape:?}");
        assert!(Tensor::zeros(0, DType::U8, cpu).unwrap().reshape(shape).is_err(), "{shape:?}");
    }
}
