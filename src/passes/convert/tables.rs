//! Functions of one code: tables, and codes that are brought to other parameters.

use super::{Conversion, PassError, refused};
use crate::graph::{CodeParams, Node, Op, ValueId};
use crate::ops::{identity, integer, table};
use crate::quant::{QParams, Requantize};
use std::sync::Arc;

impl Conversion<'_> {
    /// Codes of other parameters.
    pub(super) fn requantize(
        &mut self,
        like: &Node,
        name: &str,
        codes: ValueId,
        from: QParams,
        to: &QParams,
    ) -> Result<ValueId, PassError> {
        let mut params = CodeParams::new([from], to.clone(), Vec::new());
        params.arithmetic = self.profile.arithmetic("Identity");
        let names = [format!("{name}/requantize"), format!("{name}/requantized")];
        if params.arithmetic.requantize == Requantize::Float {
            // Through numbers, as a runtime does that requantizes in f32: a function of the code alone.
            return self.function(like, &identity(), params, codes, &names);
        }
        let op = integer(identity(), params);
        Ok(self.add(like, &names[0], op, &[codes], &names[1..])?[0])
    }

    /// A function of one number, as a table where it is one; the names are of the node and of its output.
    pub(super) fn function(
        &mut self,
        like: &Node,
        op: &Arc<dyn Op>,
        params: CodeParams,
        codes: ValueId,
        names: &[String; 2],
    ) -> Result<ValueId, PassError> {
        let made = table(op.as_ref(), &params).map_err(|e| refused(like, e))?;
        let Some((op, entries)) = made else {
            return Ok(self.add(like, &names[0], integer(Arc::clone(op), params), &[codes], &names[1..])?[0]);
        };
        let entries = self.to.new_constant(&format!("{}/table", names[0]), entries);
        Ok(self.add(like, &names[0], op, &[codes, entries], &names[1..])?[0])
    }
}
