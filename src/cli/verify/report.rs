//! What `verify` found, as text and as JSON.

use super::super::{cpu_ops, number, show};
use super::VerifyArgs;
use crate::analysis::verify::{Compared, Difference, Verified};
use crate::gpu::Device;
use serde_json::{Value, json};

/// Lines of differences that are shown; the JSON has all.
const MOST_SHOWN: usize = 20;

pub(super) fn json(found: &Verified, device_a: &Device, device_b: &Device) -> Value {
    let said = |d: &Difference| json!({ "node": d.node, "what": d.what, "a": d.a, "b": d.b });
    json!({
        "consistent": found.consistent(),
        "frames": found.frames,
        "compared_layers": found.layers.iter().filter(|l| l.elements > 0).count(),
        "compared_elements": found.elements(),
        "layers": found.layers.iter().map(one).collect::<Vec<_>>(),
        "outputs": found.outputs.iter().map(one).collect::<Vec<_>>(),
        "differences": found.differences.iter().map(said).collect::<Vec<_>>(),
        "injected": found.injected,
        "unmatched": found.unmatched,
        "device": device_a.to_string(),
        "device_b": device_b.to_string(),
        "dispatches": found.dispatches,
        "cpu_ops": cpu_ops(&found.cpu_ops),
    })
}

fn one(c: &Compared) -> Value {
    json!({
        "name": c.name,
        "elements": c.elements,
        "mismatches": c.mismatches,
        "max_abs": number(c.max_abs),
        "max_rel": number(c.max_rel),
        "first": c.first.as_ref().map(|f| json!({
            "sample": f.sample, "index": f.index, "a": number(f.a), "b": number(f.b),
        })),
    })
}

pub(super) fn show(args: &VerifyArgs, found: &Verified) {
    let differ: Vec<&Compared> =
        found.layers.iter().chain(&found.outputs).filter(|l| l.mismatches > 0).collect();
    let layers = found.layers.iter().filter(|l| l.elements > 0).count();
    let equal =
        format!("{} elements of {layers} tensors are equal in {} frames", found.elements(), found.frames);
    if !differ.is_empty() {
        show::line(&values(&differ));
    }
    if !found.differences.is_empty() {
        show::line("what they say differs:");
        show::line(&definitions(&found.differences));
    }
    let said = found.differences.len();
    show::line(&match (found.elements(), differ.len()) {
        (0, _) => "nothing was compared: no tensor of codes has one name in both".to_owned(),
        (_, 0) if said == 0 => format!("consistent: {equal}"),
        (_, 0) => format!("not consistent: {said} definitions differ, although {equal}"),
        (_, n) => {
            let also = if said == 0 { String::new() } else { format!(", and {said} definitions") };
            format!(
                "not consistent: {n} of {} tensors differ{also}",
                found.layers.len() + found.outputs.len()
            )
        }
    });
    if args.common.quiet {
        return;
    }
    if !found.injected.is_empty() {
        let n = found.injected.len();
        show::remark(&format!(
            "{n} tensors behind float islands were taken from {}: {}",
            if args.b.is_dir() { "the dump" } else { "A" },
            some(&found.injected)
        ));
    }
    if !found.unmatched.is_empty() {
        show::remark(&format!(
            "{} tensors are in one only: {}",
            found.unmatched.len(),
            some(&found.unmatched)
        ));
    }
    if let Some((node, why)) = found.cpu_ops.first() {
        let n = found.cpu_ops.len();
        show::remark(&format!("{n} operators ran on the CPU, the first is {node}: {why}"));
    }
}

fn some(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(5).map(String::as_str).collect();
    let more = if names.len() > 5 { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// A table of tensors that differ.
fn values(differ: &[&Compared]) -> String {
    let header = ["tensor", "elements", "differ", "largest", "first at", "A", "B"].map(str::to_owned);
    let row = |c: &&Compared| {
        let first = c.first.as_ref();
        vec![
            c.name.clone(),
            c.elements.to_string(),
            c.mismatches.to_string(),
            format!("{}", c.max_abs),
            first.map_or("-".to_owned(), |f| format!("{} [{}]", f.sample, f.index)),
            first.map_or("-".to_owned(), |f| f.a.to_string()),
            first.map_or("-".to_owned(), |f| f.b.to_string()),
        ]
    };
    let rows: Vec<Vec<String>> = differ.iter().map(row).collect();
    show::table(&header, &rows, 1)
}

/// A table of what the two say differently.
fn definitions(differences: &[Difference]) -> String {
    let header = ["node", "what", "A", "B"].map(str::to_owned);
    let row = |d: &Difference| vec![d.node.clone(), d.what.clone(), d.a.clone(), d.b.clone()];
    let rows: Vec<Vec<String>> = differences.iter().take(MOST_SHOWN).map(row).collect();
    let more = differences.len().saturating_sub(MOST_SHOWN);
    let rest = if more > 0 { format!("\n.. and {more} more, all in --json") } else { String::new() };
    show::table(&header, &rows, 4) + &rest
}
