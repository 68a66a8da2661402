use imaginal_tensor::{Result, Tensor};

use crate::{Init, Module, Param, Slot, Source, Weight, join};

/// Sizes of a feed-forward network of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between the matrices of one expert.
    pub inner: usize,
    /// How tokens find their experts.
    pub router: RouterConfig,
}

/// How tokens find their experts.
#[derive(Clone, Debug, PartialEq)]
pub struct RouterConfig {
    /// How many experts there are.
    pub experts: usize,
    /// How many of them a token uses.
    pub used: usize,
    /// What becomes of the router's logits.
    pub scores: Scores,
    /// Whether the weights of the experts that a token uses are divided by their sum.
    pub normalised: bool,
}

/// What becomes of the router's logits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Their softmax over all experts: those with the largest are used, and the scores are their weights.
    Softmax,
}

/// A mixture of experts (Shazeer et al. 2017; Fedus et al. 2021): many SwiGLU networks, of which a router chooses a few for
/// each token, whose results are summed by the router's weights.
///
/// The experts' matrices are stacked in one weight each. Tokens are sorted by expert, so that a matrix is read once for all
/// tokens that use it; a token's results are summed in the order of its experts, however many tokens there are.
#[derive(Clone, Debug)]
pub struct Moe {
    router: Param,
    gate: Weight,
    up: Weight,
    down: Weight,
    config: MoeConfig,
}

/// Which experts a batch of tokens uses: a row for each token and each of its experts, sorted by expert.
struct Routes {
    /// The token of each row.
    tokens: Tensor,
    /// The number of rows of each expert.
    counts: Vec<usize>,
    /// The weight of each row.
    weights: Tensor,
}

impl Moe {
    /// Builds `ffn_gate_inp.weight` `[experts, hidden]`, which stays f32, and the stacks `ffn_gate_exps.weight`,
    /// `ffn_up_exps.weight` and `ffn_down_exps.weight` under `prefix`, initialised to normal(0, 0.02).
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &MoeConfig) -> Result<Self> {
        let init = Init::Normal { std: 0.02 };
        let experts = c.router.experts;
        let mut stack = |name: &str, outputs: usize, inputs: usize| {
            source.weight(&join(prefix, name), experts * outputs, inputs, init)
        };
        Ok(Moe {
            gate: stack("ffn_gate_exps.weight", c.inner, c.hidden)?,
            up: stack("ffn_up_exps.weight", c.inner, c.hidden)?,
            down: stack("ffn_down_exps.weight", c.hidden, c.inner)?,
            router: source.param(&join(prefix, "ffn_gate_inp.weight"), &[experts, c.hidden], init)?,
            config: c.clone(),
        })
    }

    /// `x[.., hidden]` → the same shape.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.config.hidden;
        let flat = x.reshape([x.elem_count() / hidden, hidden])?;
        let Routes { tokens, counts, weights } = self.routes(&flat)?;
        let rows = flat.index_select(0, &tokens)?;
        let inner = Weight::grouped_swiglu(&self.gate, &self.up, &rows, &counts)?;
        let out = self.down.grouped_linear(&inner, &counts)?;
        out.weighted_sum(&weights, &tokens, flat.dim(0)?)?.reshape(x.shape())
    }

    fn routes(&self, x: &Tensor) -> Result<Routes> {
        let RouterConfig { experts, used, scores, normalised } = self.config.router;
        let logits = x.linear(&self.router.get(), None)?;
        let scores = match scores {
            Scores::Softmax => logits.softmax(1)?,
        };
        // Which experts are chosen has no gradient: only their weights have.
        let chosen = choose(&scores.to_vec::<f32>()?, experts, used);
        let (m, n) = (x.dim(0)?, chosen.len());
        let mut counts = vec![0; experts];
        chosen.iter().for_each(|&expert| counts[expert as usize] += 1);
        // The places of the experts' rows: where each begins, then where its next row goes.
        let mut next: Vec<usize> = counts
            .iter()
            .scan(0, |end, count| {
                *end += count;
                Some(*end - count)
            })
            .collect();
        let (mut tokens, mut sources) = (vec![0u32; n], vec![0u32; n]);
        for (at, &expert) in chosen.iter().enumerate() {
            let row = &mut next[expert as usize];
            (tokens[*row], sources[*row]) = ((at / used) as u32, at as u32);
            *row += 1;
        }
        let device = x.device();
        let mut weights = scores.gather(1, &Tensor::from_vec(chosen, [m, used], device)?)?;
        if normalised {
            weights = weights.div(&weights.sum(&[1], true)?)?;
        }
        let weights = weights.reshape(n)?.index_select(0, &Tensor::from_vec(sources, n, device)?)?;
        Ok(Routes { tokens: Tensor::from_vec(tokens, n, device)?, counts, weights })
    }
}

/// For each row of `experts` scores the `used` experts with the largest, in the order of their numbers. Of equal scores the
/// first counts as larger; what is no number counts as the largest, so that it shows.
fn choose(scores: &[f32], experts: usize, used: usize) -> Vec<u32> {
    let mut chosen = Vec::with_capacity(scores.len() / experts * used);
    let mut order: Vec<u32> = Vec::with_capacity(experts);
    for scores in scores.chunks_exact(experts) {
        order.clear();
        order.extend(0..experts as u32);
        if used < experts {
            let score = |expert: &u32| match scores[*expert as usize] {
                score if score.is_nan() => f32::INFINITY,
                score => score,
            };
            order.select_nth_unstable_by(used, |a, b| score(b).total_cmp(&score(a)).then(a.cmp(b)));
        }
        order[..used].sort_unstable();
        chosen.extend(&order[..used]);
    }
    chosen
}

impl Module for Moe {
    fn slots(&self, prefix: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        visit(join(prefix, "ffn_gate_inp.weight"), Slot::Param(&self.router));
        visit(join(prefix, "ffn_gate_exps.weight"), Slot::Weight(&self.gate));
        visit(join(prefix, "ffn_up_exps.weight"), Slot::Weight(&self.up));
        visit(join(prefix, "ffn_down_exps.weight"), Slot::Weight(&self.down));
    }
}

#[cfg(test)]
mod tests {
    use imaginal_numeric::Format;
    use imaginal_tensor::Device;

    use super::*;
    use crate::{Fresh, Rng};

    fn tensor(shape: &[usize], seed: u64) -> Tensor {
        let mut rng = Rng::new(seed);
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.normal() as f32).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn moe(experts: usize, used: usize, normalised: bool) -> Moe {
        let router = RouterConfig { experts, used, scores: Scores::Softmax, normalised };
        let moe = Moe::new(&mut Fresh::new(1, &Device::Cpu), "", &MoeConfig { hidden: 32, inner: 64, router }).unwrap();
        // A fresh router hardly tells experts apart.
        moe.router.set(tensor(&[experts, 32], 7));
        moe
    }

    /// Every expert computes every token; those that a token does not use weigh nothing.
    fn reference(moe: &Moe, x: &Tensor) -> Tensor {
        let RouterConfig { experts, used, normalised, .. } = moe.config.router;
        let (hidden, inner) = (moe.config.hidden, moe.config.inner);
        let scores = x.linear(&moe.router.get(), None).unwrap().softmax(1).unwrap();
        let (_, ids) = scores.detach().topk(1, used).unwrap();
        let ones = Tensor::ones(ids.shape(), scores.dtype(), &Device::Cpu).unwrap();
        let mask = scores.detach().zeros_like().unwrap().scatter_add(1, &ids, &ones).unwrap();
        let mut weights = scores.mul(&mask).unwrap();
        if normalised {
            weights = weights.div(&weights.sum(&[1], true).unwrap()).unwrap();
        }
        let [gate, up, down] = [&moe.gate, &moe.up, &moe.down].map(|w| w.master().unwrap().get());
        let mut out = x.detach().zeros_like().unwrap();
        for e in 0..experts {
            let part = |w: &Tensor, rows: usize| w.narrow(0, e * rows, rows).unwrap();
            let h = x.linear(&part(&gate, inner), None).unwrap();
            let h = h.swiglu(&x.linear(&part(&up, inner), None).unwrap()).unwrap();
            let y = h.linear(&part(&down, hidden), None).unwrap();
            out = out.add(&y.mul(&weights.narrow(1, e, 1).unwrap()).unwrap()).unwrap();
        }
        out
    }

    fn close(a: &Tensor, b: &Tensor, what: &str) {
        let (a, b) = (a.to_vec::<f32>().unwrap(), b.to_vec::<f32>().unwrap());
        let scale = b.iter().fold(0f32, |m, x| m.max(x.abs()));
        let worst = a.iter().zip(&b).fold(0f32, |m, (x, y)| m.max((x - y).abs()));
        assert!(worst <= 1e-5 * scale && scale > 0.0, "{what}: {worst} of {scale}");
    }

    #[test]
    fn equals_every_expert_for_every_token_in_values_and_gradients() {
        for (experts, used, normalised) in [(5, 2, true), (5, 2, false), (4, 4, true), (6, 1, false)] {
            let moe = moe(experts, used, normalised);
            moe.params("", &mut |_, p| p.set_trainable(true));
            let what = format!("{used} of {experts}");
            let run = |f: &dyn Fn(&Tensor) -> Tensor| {
                let x = tensor(&[23, 32], 2).requires_grad();
                let y = f(&x);
                let grads = y.mul(&tensor(&[23, 32], 3)).unwrap().sum_all().unwrap().backward().unwrap();
                let mut all = vec![("x".to_owned(), grads.get(&x).unwrap().clone())];
                moe.params("", &mut |name, p| all.push((name, grads.get(&p.get()).unwrap().clone())));
                (y, all)
            };
            let (y, grads) = run(&|x| moe.forward(x).unwrap());
            let (expected, expected_grads) = run(&|x| reference(&moe, x));
            close(&y, &expected, &what);
            for ((name, got), (_, expected)) in grads.iter().zip(&expected_grads) {
                close(got, expected, &format!("{what}: gradient of {name}"));
            }
        }
    }

    #[test]
    fn a_token_s_result_does_not_depend_on_the_others() {
        for format in [Format::F32, Format::Q8_0] {
            let moe = moe(5, 2, true);
            [&moe.gate, &moe.up, &moe.down].into_iter().for_each(|w| w.morph(format, false).unwrap());
            let x = tensor(&[2, 6, 32], 4);
            let all = moe.forward(&x).unwrap();
            assert_eq!(all.shape(), [2, 6, 32]);
            let (all, flat) = (all.reshape([12, 32]).unwrap(), x.reshape([12, 32]).unwrap());
            for t in 0..12 {
                let one = moe.forward(&flat.narrow(0, t, 1).unwrap()).unwrap();
                close(&one, &all.narrow(0, t, 1).unwrap(), "one token");
            }
        }
    }

    #[test]
    fn the_largest_scores_are_chosen() {
        assert_eq!(choose(&[0.1, 0.4, 0.2, 0.3, 0.25, 0.25, 0.25, 0.25], 4, 2), [1, 3, 0, 1]);
        assert_eq!(choose(&[0.3, f32::NAN, 0.7], 3, 1), [1]);
        assert_eq!(choose(&[0.3, 0.7], 2, 2), [0, 1]);
    }
}
