//! Which target's arithmetic a black box obeys, told from its inputs and what it answers.
//!
//! A model's operators are computed as every profile would, each on the inputs that the black box itself had, where it
//! shows them: so that an operator is judged although those before it differ. A profile is excluded by an element that it
//! does not give. Where the black box shows its outputs alone, all operators between them and the inputs are judged as one.

mod answers;
mod candidates;
mod draw;
mod form;
mod names;
mod probes;
mod read;
mod segment;
mod source;

pub use answers::{Answer, AnswerOptions, Answers, Ignored, Layout};
pub use candidates::{Candidate, Candidates, Unfit, candidates};
pub use probes::{Pair, ProbeInput, ProbeOptions, Probes, SeparatedAt, probes};
pub use read::{Difference, Excluded, Judged, Reading, read};
pub use segment::Slack;
