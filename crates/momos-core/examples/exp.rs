use momos_core::codec::{
    motif_tree::MotifTree,
    paths::{self, Effort},
};
use momos_core::{Monitor, float::FloatType};
use std::fs;
fn now() -> f64 {
    fs::read_to_string("/proc/thread-self/schedstat")
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse::<f64>()
        .unwrap()
        * 1e-9
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let base = &a[1];
    let eff = if a.len() > 2 && a[2] == "best" {
        Effort::Best
    } else {
        Effort::Default
    };
    let step: usize = if a.len() > 3 {
        a[3].parse().unwrap()
    } else {
        1
    };
    let rd = |e: &str| fs::read(format!("{base}.{e}")).unwrap();
    let z = rd("z");
    let idx: Vec<u32> = rd("a")
        .chunks(4)
        .map(|c| u32::from_le_bytes(c.try_into().unwrap()))
        .collect();
    let meta = String::from_utf8(rd("meta")).unwrap();
    let mut li = meta.lines();
    let mut h = li.next().unwrap().split(' ');
    let s: usize = h.next().unwrap().parse().unwrap();
    let k: usize = h.next().unwrap().parse().unwrap();
    let tens: Vec<(usize, usize, String)> = li
        .map(|l| {
            let mut q = l.split(' ');
            (
                q.next().unwrap().parse().unwrap(),
                q.next().unwrap().parse().unwrap(),
                q.next().unwrap().into(),
            )
        })
        .collect();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    pool.install(|| {
        let t = now();
        let tree = MotifTree::new(&z, s, FloatType::F32).unwrap();
        println!("tree {:?}", (now() - t));
        let mut pos = vec![0u32; k];
        for (i, &r) in tree.rows().iter().enumerate() {
            pos[r as usize] = i as u32
        }
        let (mut o, mut n, mut by, mut te, mut td) = (0, 0, 0, 0.0, f64::INFINITY.min(0.0));
        for (i, (r, c, name)) in tens.iter().enumerate() {
            let m = r * c / s;
            let p: Vec<u32> = idx[o..o + m].iter().map(|&i| pos[i as usize]).collect();
            o += m;
            if i % step != step / 3 {
                continue;
            }
            let mo = Monitor::new();
            let t = now();
            let st = paths::encode(&p, &tree, c / s, eff, &mo).unwrap();
            te += (now() - t);
            let mut best = 1e9f64;
            for _ in 0..(if eff == Effort::Best { 1 } else { 3 }) {
                let t = now();
                let d = paths::decode(&st, m, &tree, &mo).unwrap();
                best = best.min((now() - t));
                assert!(d == p);
            }
            td += best;
            n += m * s;
            by += st.len();
            if step > 1 || i < 4 {
                println!(
                    "{name} {r}x{c} {:?} {:.4} bpw",
                    &st[..3],
                    st.len() as f64 * 8.0 / (m * s) as f64
                );
            }
        }
        println!(
            "{:.4} bpw enc {te:.2}s ({:.1} MB/s) dec {td:.2}s ({:.1} MB/s)",
            by as f64 * 8.0 / n as f64,
            n as f64 * 4e-6 / te,
            n as f64 * 4e-6 / td
        );
    });
}
