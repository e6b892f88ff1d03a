//! `samebit save-ranges`: the scales of a graph's quantizers as JSON for other tools.

use super::files::Files;
use super::model::ConversionArgs;
use super::{Outcome, output, show, write_json};
use crate::analysis::calibrate::refuse_unfit;
use crate::analysis::ranges::{FORMS, Form, write};
use crate::error::Error;
use crate::graph::Stage;
use clap::Args;
use clap::builder::PossibleValue;
use serde_json::json;

#[derive(Debug, Args)]
pub(super) struct SaveRangesArgs {
    #[command(flatten)]
    pub(super) io: ConversionArgs,
    /// Whose form it has
    #[arg(long, value_parser = forms())]
    form: String,
}

fn forms() -> clap::builder::PossibleValuesParser {
    FORMS.iter().map(|f| PossibleValue::new(f.name).help(f.about)).collect::<Vec<_>>().into()
}

impl SaveRangesArgs {
    pub(super) fn files(&self) -> Files<'_> {
        Files::default().reads(&self.io.model).writes("-o", Some(&self.io.output))
    }
}

pub(super) fn run(args: &SaveRangesArgs) -> Result<Outcome, Error> {
    let io = &args.io;
    let model = io.model.display().to_string();
    let graph = io.load()?;
    if graph.stage == Stage::Float {
        return Err(Error::Usage(format!(
            "{model}: has no quantizers: `samebit calibrate` makes a graph that has"
        )));
    }
    refuse_unfit(&model, &graph)?;
    let form: &Form = FORMS.iter().find(|f| f.name == args.form).expect("clap knows the forms");
    let written = write(&graph, form);
    write_json(&io.output, &written.file)?;
    let shown = output::shown(&io.output);
    let shown = shown.display();
    if !io.common.quiet {
        show::remark(&format!("{shown}: the scales of {} tensors, {}", written.tensors, form.about));
        let mut reasons: Vec<&str> = written.left_out.iter().map(|l| l.reason).collect();
        reasons.sort_unstable();
        reasons.dedup();
        for reason in reasons {
            let tensors = written.left_out.iter().filter(|l| l.reason == reason);
            show::remark(&format!("{} left out: {reason}", tensors.count()));
        }
    }
    Ok(Outcome::fine(json!({
        "file": shown.to_string(),
        "form": form.name,
        "stage": graph.stage.name(),
        "tensors": written.tensors,
        "left_out": written.left_out.iter().map(|l| json!({ "tensor": l.tensor, "reason": l.reason })).collect::<Vec<_>>(),
    })))
}
