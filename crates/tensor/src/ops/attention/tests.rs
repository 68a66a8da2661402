use imaginal_numeric::Format;

use super::{AttentionOpts, KvCache};
use crate::ops::testing::{check_against_reference, difference, noise};
use crate::{Device, Tensor};

fn opts(d: usize) -> AttentionOpts {
    AttentionOpts { scale: 2.0 / (d as f32).sqrt(), ..AttentionOpts::causal(d, 0) }
}

#[test]
fn equals_its_reference_in_values_and_gradients() {
    // batch, queries, keys, query heads, key heads, head size, value size, first position
    for (b, tq, tk, hq, hk, d, dv, start) in [
        (1, 1, 1, 1, 1, 4, 4, 0),
        (2, 5, 5, 4, 2, 8, 8, 0),
        (1, 70, 70, 2, 1, 16, 16, 0),
        (2, 3, 40, 6, 3, 64, 64, 37),
        (1, 1, 130, 5, 5, 64, 64, 129),
        (1, 33, 90, 2, 2, 12, 20, 50),
        (1, 150, 150, 2, 2, 80, 80, 0),
    ] {
        let mut inputs = vec![noise(&[b, tq, hq, d], 1), noise(&[b, tk, hk, d], 2), noise(&[b, tk, hk, dv], 3)];
        for variant in 0..6 {
            let mut o = AttentionOpts { q_start: start, ..opts(d) };
            match variant {
                1 => o.window = Some(7),
                2 => o.softcap = Some(1.5),
                3 => o.causal = false,
                4 => o.chunk = Some(11),
                5 => inputs.push(noise(&[hq], 4)),
                _ => {}
            }
            check_against_reference(
                &inputs,
                |t| t[0].attention(&t[1], &t[2], t.get(3), &o),
                |t| t[0].attention_reference(&t[1], &t[2], t.get(3), &o),
                2e-5,
            );
        }
    }
}

#[test]
fn reads_views_of_a_longer_cache() {
    let (k, v) = (noise(&[1, 50, 2, 16], 2), noise(&[1, 50, 2, 16], 3));
    let q = noise(&[1, 4, 1, 4, 16], 1).narrow(3, 0, 4).unwrap().reshape([1, 4, 4, 16]).unwrap();
    let o = AttentionOpts { q_start: 20, ..opts(16) };
    let (k, v) = (k.narrow(1, 0, 24).unwrap(), v.narrow(1, 0, 24).unwrap());
    let got = q.attention(&k, &v, None, &o).unwrap();
    assert!(difference(&got, &q.attention_reference(&k, &v, None, &o).unwrap()) < 2e-5);
}

#[test]
fn wrong_shapes_are_errors() {
    let q = noise(&[1, 4, 4, 8], 1);
    let kv = |t, h, d| noise(&[1, t, h, d], 2);
    assert!(q.attention(&kv(4, 3, 8), &kv(4, 3, 8), None, &opts(8)).is_err());
    assert!(q.attention(&kv(4, 2, 6), &kv(4, 2, 8), None, &opts(8)).is_err());
    assert!(q.attention(&kv(4, 2, 8), &kv(5, 2, 8), None, &opts(8)).is_err());
    assert!(q.attention(&kv(3, 2, 8), &kv(3, 2, 8), None, &opts(8)).is_err());
    assert!(q.attention(&kv(4, 2, 8), &kv(4, 2, 8), None, &AttentionOpts { window: Some(0), ..opts(8) }).is_err());
    assert!(q.attention(&kv(4, 2, 8), &kv(4, 2, 8), None, &AttentionOpts { chunk: Some(0), ..opts(8) }).is_err());
}

/// Rows of `[b, t, h, d]` rounded to a format, one by one.
fn rounded(x: &Tensor, format: Format) -> Tensor {
    let mut values = x.to_vec::<f32>().unwrap();
    let d = x.shape()[3];
    let mut bytes = vec![0; format.bytes_for(d).unwrap()];
    for row in values.chunks_mut(d) {
        format.encode(row, &mut bytes).unwrap();
        format.decode(&bytes, row).unwrap();
    }
    Tensor::from_vec(values, x.shape(), &Device::Cpu).unwrap()
}

#[test]
fn a_cache_is_what_its_rows_round_to() {
    for format in KvCache::FORMATS {
        let (k, v) = (noise(&[2, 40, 2, 32], 2), noise(&[2, 40, 2, 32], 3));
        let sinks = noise(&[4], 4);
        let mut cache = KvCache::new(format, 2, 2, 32, &Device::Cpu).unwrap();
        for (at, t) in [(0, 30), (30, 1), (31, 9)] {
            // Queries whose heads do not lie side by side, and rows of a longer tensor.
            let q = noise(&[2, 4, t, 32], 1).transpose(1, 2).unwrap();
            cache.append(&k.narrow(1, at, t).unwrap(), &v.narrow(1, at, t).unwrap()).unwrap();
            let o = AttentionOpts { q_start: at, softcap: Some(3.0), window: Some(25), ..opts(32) };
            let got = q.attention_cached(&cache, Some(&sinks), &o).unwrap();
            let all = |x: &Tensor| rounded(&x.narrow(1, 0, at + t).unwrap(), format);
            let expected = q.attention_reference(&all(&k), &all(&v), Some(&sinks), &o).unwrap();
            let bound = if format == Format::F32 { 2e-5 } else { 2e-2 };
            assert!(difference(&got, &expected) < bound, "{format} {at}: {}", difference(&got, &expected));
        }
        let fork = cache.clone();
        cache.truncate(10);
        let (k, v) = (k.narrow(1, 0, 1).unwrap(), v.narrow(1, 0, 1).unwrap());
        cache.append(&k, &v).unwrap();
        assert_eq!((cache.len(), fork.len()), (11, 40));
        assert!(cache.append(&k.narrow(3, 0, 16).unwrap(), &v).is_err());
        assert!(noise(&[2, 1, 4, 16], 1).attention_cached(&fork, None, &opts(16)).is_err());
        assert!(noise(&[2, 1, 3, 32], 1).attention_cached(&fork, None, &opts(32)).is_err());
    }
}

/// One tensor of keys whose beginnings are the values: what latent attention remembers.
#[test]
fn values_may_be_the_beginnings_of_keys() {
    for format in KvCache::FORMATS {
        let rows = noise(&[2, 40, 1, 96], 2);
        let mut cache = KvCache::latent(format, 2, 96, 64, &Device::Cpu).unwrap();
        for (at, t) in [(0, 30), (30, 1), (31, 9)] {
            cache.append_latent(&rows.narrow(1, at, t).unwrap()).unwrap();
            let (q, o) = (noise(&[2, t, 6, 96], 1), AttentionOpts { q_start: at, ..opts(96) });
            let got = q.attention_cached(&cache, None, &o).unwrap();
            let all = rounded(&rows.narrow(1, 0, at + t).unwrap(), format);
            let expected = q.attention_reference(&all, &all.narrow(3, 0, 64).unwrap(), None, &o).unwrap();
            let bound = if format == Format::F32 { 2e-5 } else { 2e-2 };
            assert!(difference(&got, &expected) < bound, "{format} {at}: {}", difference(&got, &expected));
        }
        assert_eq!(difference(&cache.latents().unwrap(), &rounded(&rows, format)), 0.0);
        let mut saved = Vec::new();
        cache.save(&mut saved).unwrap();
        let mut again = KvCache::latent(format, 2, 96, 64, &Device::Cpu).unwrap();
        again.restore(40, &saved).unwrap();
        assert_eq!((again.len(), again.bytes()), (40, cache.bytes()));
        let (q, o) = (noise(&[2, 1, 6, 96], 1), AttentionOpts { q_start: 39, ..opts(96) });
        let [a, b] = [&cache, &again].map(|c| q.attention_cached(c, None, &o).unwrap());
        assert_eq!(difference(&a, &b), 0.0);
        assert!(cache.append(&rows, &rows).is_err());
    }
    assert!(KvCache::latent(Format::F32, 1, 8, 9, &Device::Cpu).is_err());
    assert!(KvCache::latent(Format::Q8_0, 1, 64, 48, &Device::Cpu).is_err());
}
