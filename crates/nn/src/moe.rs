use imaginal_tensor::{Device, Result, Tensor};

use crate::{Activation, Init, Linear, Mlp, MlpConfig, Module, Param, Slot, Source, Weight, join};

/// Sizes of a feed-forward network of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct MoeConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between the matrices of one expert.
    pub inner: usize,
    /// Whether experts have a gate.
    pub gated: bool,
    /// The function between their matrices.
    pub activation: Activation,
    /// Whether their matrices have biases.
    pub bias: bool,
    /// How tokens find their experts.
    pub router: RouterConfig,
    /// What every token uses besides.
    pub shared: Option<SharedExperts>,
    /// Experts work on a projection of the token of this width, and their sum is projected back (Nemotron 3).
    pub latent: Option<usize>,
    /// Whether the matrices into and out of the narrower space have biases.
    pub latent_bias: bool,
}

/// Experts that every token uses: together one feed-forward network of the same kind.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedExperts {
    /// Width between its matrices.
    pub inner: usize,
    /// Whether its result is multiplied by the sigmoid of a product with the token (Qwen 2 MoE).
    pub gate: bool,
    /// Whether its matrices have biases, as those of the others may have too.
    pub bias: bool,
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
    /// Whether the router's matrix has a bias.
    pub bias: bool,
    /// Whether experts are chosen by their scores plus a correction of each, which is no part of their weights (DeepSeek
    /// V3).
    pub correction: bool,
    /// Experts lie in groups, of which only some are looked at.
    pub groups: Option<Groups>,
    /// Whether the weights of the experts that a token uses are divided by their sum.
    pub normalised: bool,
    /// Factor of the weights.
    pub scale: f64,
    /// Whether experts get the token multiplied by its weight, instead of their result being multiplied (Llama 4).
    pub on_input: bool,
}

/// What becomes of the router's logits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Scores {
    /// Their softmax over all experts: those with the largest are used, and the scores are their weights.
    Softmax,
    /// Their softmax over the experts that are used.
    SoftmaxChosen,
    /// Their sigmoid.
    Sigmoid,
}

/// Groups of experts (DeepSeek V2, §2.2.3): those with the highest scores are looked at.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many there are.
    pub count: usize,
    /// How many of them are looked at.
    pub used: usize,
    /// A group's score is the sum of so many of its highest: 1 or 2.
    pub top: usize,
}

/// A mixture of experts (Shazeer et al. 2017; Fedus et al. 2021): many feed-forward networks, of which a router chooses a
/// few for each token, whose results are summed by the router's weights.
///
/// The experts' matrices are stacked in one weight each. Tokens are sorted by expert, so that a matrix is read once for all
/// tokens that use it; a token's results are summed in the order of its experts, however many tokens there are.
#[derive(Clone, Debug)]
pub struct Moe {
    router: Param,
    router_bias: Option<Param>,
    correction: Option<Param>,
    gate: Option<Experts>,
    up: Experts,
    down: Experts,
    shared: Option<(Mlp, Option<Param>)>,
    latent: Option<[Linear; 2]>,
    config: MoeConfig,
}

/// A matrix of every expert.
#[derive(Clone, Debug)]
struct Experts {
    stack: Weight,
    /// `[experts, outputs]`.
    bias: Option<Param>,
}

/// Which experts a batch of tokens uses: a row for each token and each of its experts, sorted by expert.
struct Routes {
    /// The token of each row.
    tokens: Tensor,
    /// The expert of each row.
    experts: Vec<u32>,
    /// The number of rows of each expert.
    counts: Vec<usize>,
    /// The weight of each row.
    weights: Tensor,
}

impl Experts {
    fn forward(&self, x: &Tensor, routes: &Routes) -> Result<Tensor> {
        let y = self.stack.grouped_linear(x, &routes.counts)?;
        match &self.bias {
            Some(bias) => {
                let experts = Tensor::from_vec(routes.experts.clone(), routes.experts.len(), x.device())?;
                y.add(&bias.get().index_select(0, &experts)?)
            }
            None => Ok(y),
        }
    }

    fn slots(&self, name: &str, visit: &mut dyn FnMut(String, Slot<'_>)) {
        visit(join(name, "weight"), Slot::Weight(&self.stack));
        if let Some(bias) = &self.bias {
            visit(join(name, "bias"), Slot::Param(bias));
        }
    }
}

impl Moe {
    /// Builds `ffn_gate_inp.weight` `[experts, hidden]`, which stays f32, the stacks `ffn_gate_exps.weight`,
    /// `ffn_up_exps.weight` and `ffn_down_exps.weight` and, where configured, the biases of all of them, `exp_probs_b.bias`
    /// and the shared experts' `ffn_*_shexp` under `prefix`, initialised to normal(0, 0.02).
    ///
    /// # Errors
    /// The source does not have them in these shapes.
    pub fn new(source: &mut dyn Source, prefix: &str, c: &MoeConfig) -> Result<Self> {
        let init = Init::Normal { std: 0.02 };
        let n = c.router.experts;
        let width = c.latent.unwrap_or(c.hidden);
        let mut stack = |name: &str, outputs: usize, inputs: usize| {
            let name = join(prefix, name);
            let stack = source.weight(&join(&name, "weight"), n * outputs, inputs, init)?;
            let bias = match c.bias {
                true => Some(source.param(&join(&name, "bias"), &[n, outputs], Init::Zeros)?),
                false => None,
            };
            Ok::<_, imaginal_tensor::Error>(Experts { stack, bias })
        };
        let gate = if c.gated { Some(stack("ffn_gate_exps", c.inner, width)?) } else { None };
        let up = stack("ffn_up_exps", c.inner, width)?;
        let down = stack("ffn_down_exps", width, c.inner)?;
        let mut param = |there: bool, name: &str, shape: &[usize], init| match there {
            true => source.param(&join(prefix, name), shape, init).map(Some),
            false => Ok(None),
        };
        let router_bias = param(c.router.bias, "ffn_gate_inp.bias", &[n], Init::Zeros)?;
        let correction = param(c.router.correction, "exp_probs_b.bias", &[n], Init::Zeros)?;
        let shared_gate = c.shared.as_ref().is_some_and(|s| s.gate);
        let shared_gate = param(shared_gate, "ffn_gate_inp_shexp.weight", &[c.hidden], init)?;
        let shared = match &c.shared {
            Some(shared) => {
                let MoeConfig { hidden, gated, activation, .. } = *c;
                let bias = shared.bias;
                let mlp = MlpConfig { hidden, inner: shared.inner, gated, activation, bias, sparsity: None };
                Some((Mlp::named(source, prefix, "_shexp", &mlp)?, shared_gate))
            }
            None => None,
        };
        let mut linear = |name: &str, inputs, outputs| {
            Linear::new(source, &join(prefix, name), inputs, outputs, c.latent_bias, init)
        };
        let latent = match c.latent {
            Some(width) => {
                Some([linear("ffn_latent_down", c.hidden, width)?, linear("ffn_latent_up", width, c.hidden)?])
            }
            None => None,
        };
        let router = source.param(&join(prefix, "ffn_gate_inp.weight"), &[n, c.hidden], init)?;
        Ok(Moe { router, router_bias, correction, gate, up, down, shared, latent, config: c.clone() })
    }

    /// `x[.., hidden]` → the same shape.
    ///
    /// # Errors
    /// The shapes do not fit.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let c = &self.config;
        let flat = x.reshape([x.elem_count() / c.hidden, c.hidden])?;
        let mut routes = self.routes(&flat)?;
        let mut rows = match &self.latent {
            Some([down, _]) => down.forward(&flat)?.index_select(0, &routes.tokens)?,
            None => flat.index_select(0, &routes.tokens)?,
        };
        if c.router.on_input {
            rows = rows.mul(&routes.weights.unsqueeze(1)?)?;
            routes.weights = Tensor::ones(routes.weights.shape(), x.dtype(), x.device())?;
        }
        let inner = match &self.gate {
            Some(gate) if c.activation == Activation::Silu && !c.bias => {
                Weight::grouped_swiglu(&gate.stack, &self.up.stack, &rows, &routes.counts)?
            }
            Some(gate) => c.activation.gate(&gate.forward(&rows, &routes)?, &self.up.forward(&rows, &routes)?)?,
            None => c.activation.apply(&self.up.forward(&rows, &routes)?)?,
        };
        let out = self.down.forward(&inner, &routes)?;
        let mut y = out.weighted_sum(&routes.weights, &routes.tokens, flat.dim(0)?)?;
        if let Some([_, up]) = &self.latent {
            y = up.forward(&y)?;
        }
        if let Some((mlp, gate)) = &self.shared {
            let mut shared = mlp.forward(&flat)?;
            if let Some(gate) = gate {
                let gate = flat.linear(&gate.get().reshape([1, c.hidden])?, None)?.sigmoid()?;
                shared = shared.mul(&gate)?;
            }
            y = y.add(&shared)?;
        }
        y.reshape(x.shape())
    }

    fn routes(&self, x: &Tensor) -> Result<Routes> {
        let RouterConfig { experts, used, normalised, groups, scale, .. } = self.config.router;
        let bias = self.router_bias.as_ref().map(Param::get);
        let logits = x.linear(&self.router.get(), bias.as_ref())?;
        let scores = match self.config.router.scores {
            Scores::Softmax => logits.softmax(1)?,
            Scores::SoftmaxChosen => logits,
            Scores::Sigmoid => logits.sigmoid()?,
        };
        // Which experts are chosen has no gradient: only their weights have.
        let mut chances = scores.detach();
        if let Some(correction) = &self.correction {
            chances = chances.add(&correction.get().detach())?;
        }
        let mut chances = chances.to_vec::<f32>()?;
        if let Some(groups) = groups {
            chances.chunks_exact_mut(experts).for_each(|row| close_groups(row, groups));
        }
        let chosen = choose(&chances, experts, used);
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
        let (mut tokens, mut sources, mut sorted) = (vec![0u32; n], vec![0u32; n], vec![0u32; n]);
        for (at, &expert) in chosen.iter().enumerate() {
            let row = &mut next[expert as usize];
            (tokens[*row], sources[*row], sorted[*row]) = ((at / used) as u32, at as u32, expert);
            *row += 1;
        }
        let device: &Device = x.device();
        let mut weights = scores.gather(1, &Tensor::from_vec(chosen, [m, used], device)?)?;
        if self.config.router.scores == Scores::SoftmaxChosen {
            weights = weights.softmax(1)?;
        }
        if normalised {
            weights = weights.div(&weights.sum(&[1], true)?)?;
        }
        if scale != 1.0 {
            weights = weights.mul_scalar(scale)?;
        }
        let mut weights = weights.reshape(n)?;
        if m > 1 {
            weights = weights.index_select(0, &Tensor::from_vec(sources, n, device)?)?;
        }
        Ok(Routes { tokens: Tensor::from_vec(tokens, n, device)?, experts: sorted, counts, weights })
    }
}

/// Takes the experts of all groups but the best out of the choice. Of equal groups the first counts as better.
fn close_groups(scores: &mut [f32], groups: Groups) {
    let size = scores.len() / groups.count;
    let rank = |group: &[f32]| {
        let mut best: Vec<f32> = group.to_vec();
        best.sort_unstable_by(|a, b| b.total_cmp(a));
        best.iter().take(groups.top).sum::<f32>()
    };
    let ranks: Vec<f32> = scores.chunks_exact(size).map(rank).collect();
    let open = choose(&ranks, groups.count, groups.used);
    for (i, group) in scores.chunks_exact_mut(size).enumerate() {
        if !open.contains(&(i as u32)) {
            group.fill(f32::NEG_INFINITY);
        }
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
        let mut param = |name: &str, p: &Option<Param>| {
            p.iter().for_each(|p| visit(join(prefix, name), Slot::Param(p)));
        };
        param("ffn_gate_inp.bias", &self.router_bias);
        param("exp_probs_b.bias", &self.correction);
        for (name, experts) in [
            ("ffn_gate_exps", self.gate.as_ref()),
            ("ffn_up_exps", Some(&self.up)),
            ("ffn_down_exps", Some(&self.down)),
        ] {
            if let Some(experts) = experts {
                experts.slots(&join(prefix, name), visit);
            }
        }
        for (name, linear) in ["ffn_latent_down", "ffn_latent_up"].into_iter().zip(self.latent.iter().flatten()) {
            linear.slots(&join(prefix, name), visit);
        }
        if let Some((mlp, gate)) = &self.shared {
            mlp.slots_named(prefix, "_shexp", visit);
            if let Some(gate) = gate {
                visit(join(prefix, "ffn_gate_inp_shexp.weight"), Slot::Param(gate));
            }
        }
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
        of(MoeConfig {
            hidden: 32,
            inner: 64,
            gated: true,
            activation: Activation::Silu,
            bias: false,
            router: RouterConfig {
                experts,
                used,
                scores: Scores::Softmax,
                bias: false,
                correction: false,
                groups: None,
                normalised,
                scale: 1.0,
                on_input: false,
            },
            shared: None,
            latent: None,
            latent_bias: false,
        })
    }

    fn of(config: MoeConfig) -> Moe {
        let moe = Moe::new(&mut Fresh::new(1, &Device::Cpu), "", &config).unwrap();
        // A fresh router hardly tells experts apart, and fresh biases are 0.
        moe.router.set(tensor(&[config.router.experts, 32], 7));
        for (i, p) in [&moe.router_bias, &moe.correction, &moe.up.bias, &moe.down.bias].into_iter().enumerate() {
            p.iter().for_each(|p| p.set(tensor(p.get().shape(), 20 + i as u64)));
        }
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
        let [gate, up, down] =
            [moe.gate.as_ref().unwrap(), &moe.up, &moe.down].map(|w| w.stack.master().unwrap().get());
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
            let stacks = [moe.gate.as_ref().unwrap(), &moe.up, &moe.down];
            stacks.into_iter().for_each(|w| w.stack.morph(format, false).unwrap());
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

    #[test]
    fn groups_are_closed_by_the_sum_of_their_best() {
        let groups = |top| Groups { count: 3, used: 1, top };
        let row = [0.5, 0.1, 0.4, 0.4, 0.45, 0.0];
        let open = |groups| {
            let mut scores = row;
            close_groups(&mut scores, groups);
            scores.map(|x| x.is_finite())
        };
        assert_eq!(open(groups(1)), [true, true, false, false, false, false]);
        assert_eq!(open(groups(2)), [false, false, true, true, false, false]);
    }

    /// Every option at once, against a loop over tokens and experts in f64.
    #[test]
    fn routers_of_every_kind_follow_their_definition() {
        for (scores, on_input, gated) in
            [(Scores::Sigmoid, false, true), (Scores::SoftmaxChosen, false, false), (Scores::Sigmoid, true, false)]
        {
            let moe = of(MoeConfig {
                inner: 24,
                gated,
                activation: Activation::Relu2,
                bias: true,
                router: RouterConfig {
                    scores,
                    bias: true,
                    correction: scores == Scores::Sigmoid,
                    groups: Some(Groups { count: 3, used: 2, top: 2 }),
                    normalised: scores == Scores::Sigmoid,
                    scale: 2.5,
                    on_input,
                    ..moe(6, 2, true).config.router
                },
                shared: Some(SharedExperts { inner: 20, gate: true, bias: false }),
                ..moe(6, 2, true).config
            });
            let x = tensor(&[9, 32], 5);
            let mut values = std::collections::HashMap::new();
            moe.params("", &mut |name, p| {
                let f64s = p.get().to_vec::<f32>().unwrap().into_iter().map(f64::from).collect::<Vec<_>>();
                values.insert(name, f64s);
            });
            let product = |name: &str, expert: usize, x: &[f64]| -> Vec<f64> {
                let w = &values[&format!("{name}.weight")];
                let bias = values.get(&format!("{name}.bias"));
                let stacked = name.ends_with("_exps");
                let rows = if stacked { w.len() / x.len() / 6 } else { w.len() / x.len() };
                let row = |i: usize| -> f64 {
                    let i = expert * rows + i;
                    let sum: f64 = w[i * x.len()..][..x.len()].iter().zip(x).map(|(a, b)| a * b).sum();
                    sum + bias.map_or(0.0, |b| b[i])
                };
                (0..rows).map(row).collect()
            };
            let network = |suffix: &str, expert: usize, x: &[f64]| -> Vec<f64> {
                let relu2 = |x: f64| x.max(0.0).powi(2);
                let up = product(&format!("ffn_up{suffix}"), expert, x);
                let inner = match gated {
                    true => {
                        let gate = product(&format!("ffn_gate{suffix}"), expert, x);
                        up.iter().zip(gate).map(|(u, g)| u * relu2(g)).collect()
                    }
                    false => up.into_iter().map(relu2).collect::<Vec<_>>(),
                };
                product(&format!("ffn_down{suffix}"), expert, &inner)
            };
            let mut expected = Vec::new();
            for row in x.to_vec::<f32>().unwrap().chunks(32) {
                let row: Vec<f64> = row.iter().map(|&x| x as f64).collect();
                let logits = product("ffn_gate_inp", 0, &row);
                let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
                let score = |e: usize| if scores == Scores::Sigmoid { sigmoid(logits[e]) } else { logits[e] };
                let chance = |e: usize| score(e) + values.get("exp_probs_b.bias").map_or(0.0, |b| b[e]);
                let mut groups: Vec<usize> = vec![0, 1, 2];
                groups.sort_by(|a, b| {
                    let sum = |g: usize| chance(2 * g) + chance(2 * g + 1);
                    sum(*b).total_cmp(&sum(*a))
                });
                let mut open: Vec<usize> = groups[..2].iter().flat_map(|g| [2 * g, 2 * g + 1]).collect();
                open.sort_by(|a, b| chance(*b).total_cmp(&chance(*a)));
                let chosen = &open[..2];
                let weigh = |e: usize| if scores == Scores::Sigmoid { score(e) } else { score(e).exp() };
                let sum: f64 = chosen.iter().map(|&e| weigh(e)).sum();
                let gate: f64 = values["ffn_gate_inp_shexp.weight"].iter().zip(&row).map(|(a, b)| a * b).sum();
                let mut y: Vec<f64> = network("_shexp", 0, &row).into_iter().map(|y| y * sigmoid(gate)).collect();
                for &e in chosen {
                    let weight = 2.5 * weigh(e) / sum;
                    let input: Vec<f64> = row.iter().map(|x| if on_input { x * weight } else { *x }).collect();
                    let factor = if on_input { 1.0 } else { weight };
                    network("_exps", e, &input).iter().zip(&mut y).for_each(|(a, y)| *y += a * factor);
                }
                expected.extend(y.into_iter().map(|y| y as f32));
            }
            let expected = Tensor::from_vec(expected, [9, 32], &Device::Cpu).unwrap();
            close(&moe.forward(&x).unwrap(), &expected, &format!("{scores:?} {on_input} {gated}"));
        }
    }
}
