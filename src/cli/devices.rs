//! `samebit devices`: what there is to run on.

use super::{Common, Outcome, show};
use crate::error::Error;
use crate::gpu::{Adapter, Choice, Kind, adapters};
use clap::Args;
use serde_json::json;

#[derive(Debug, Args)]
pub(super) struct DevicesArgs {
    #[command(flatten)]
    pub(super) common: Common,
}

pub(super) fn run(args: &DevicesArgs) -> Result<Outcome, Error> {
    let found = adapters();
    let auto = found.iter().find(|a| a.kind == Kind::Hardware);
    let auto = auto.map_or("cpu".to_owned(), |a| Choice::Index(a.index).to_string());
    let header = ["device", "name", "kind", "driver", "binding", "features"].map(str::to_owned);
    let mut rows = vec![vec![
        "cpu".to_owned(),
        format!("CPU executor, {} threads", rayon::current_num_threads()),
        "cpu".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
    ]];
    rows.extend(found.iter().map(row));
    show::line(&show::table(&header, &rows, 6));
    show::line(&format!("auto takes {auto}"));
    if found.is_empty() && !args.common.quiet {
        show::remark(
            "no GPU driver found: everything runs on the CPU (a software Vulkan driver for tests: Debian's mesa-vulkan-drivers)",
        );
    }
    let devices: Vec<serde_json::Value> = found.iter().map(describe).collect();
    Ok(Outcome::fine(json!({ "devices": devices, "auto": auto })))
}

fn row(a: &Adapter) -> Vec<String> {
    vec![
        Choice::Index(a.index).to_string(),
        a.name.clone(),
        format!("{} {}", a.kind.name(), a.backend),
        a.driver.clone(),
        format!("{} MiB", a.limits.binding_bytes >> 20),
        a.features.join(" "),
    ]
}

fn describe(a: &Adapter) -> serde_json::Value {
    let l = &a.limits;
    json!({
        "index": a.index,
        "name": a.name,
        "backend": a.backend,
        "kind": a.kind.name(),
        "device_type": a.device_type,
        "driver": a.driver,
        "features": a.features,
        "subgroup_size": [a.subgroup_size.0, a.subgroup_size.1],
        "limits": {
            "binding_bytes": l.binding_bytes,
            "buffer_bytes": l.buffer_bytes,
            "storage_buffers": l.storage_buffers,
            "invocations": l.invocations,
            "workgroup_bytes": l.workgroup_bytes,
        },
    })
}
