//! Text to graph.

use super::super::attrs::{Input, SymInt};
use super::super::op::Lookup;
use super::super::{AttrValue, Attrs, Graph, Node, NodeId, Reader, Source, Stage, Target, Value, ValueId};
use super::lex::{Placed, Token, words};
use super::{ContentHash, number};
use crate::graph::op::check;
use crate::quant::Profile;
use crate::tensor::{DType, Dim, MAX_RANK, Tensor, TensorType};
use std::collections::BTreeMap;

/// A text that is not a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: expected {expected}, found {found}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What would have been right.
    pub expected: String,
    /// What is there.
    pub found: String,
}

impl ParseError {
    pub(super) fn new(
        line: usize,
        column: usize,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        ParseError { line, column, expected: expected.into(), found: found.into() }
    }
}

/// Reads what [`super::print()`] wrote; constants named by hash come from `constants`.
///
/// # Errors
/// Where and what was expected instead.
pub fn parse(
    text: &str,
    ops: Lookup,
    constants: &BTreeMap<ContentHash, Tensor>,
) -> Result<Graph, ParseError> {
    let words = words(text)?;
    let mut p = Parser { words, at: 0, values: BTreeMap::new(), constants, ops };
    p.graph()
}

struct Parser<'a> {
    words: Vec<Placed>,
    at: usize,
    values: BTreeMap<u32, Value>,
    constants: &'a BTreeMap<ContentHash, Tensor>,
    ops: Lookup,
}

type Parsed<T> = Result<T, ParseError>;

impl Parser<'_> {
    fn peek(&self) -> &Token {
        self.words.get(self.at).map_or(&Token::End, |w| &w.token)
    }

    /// An error at a word; at the last one beyond the end.
    fn error_at(&self, at: usize, expected: impl Into<String>, found: impl Into<String>) -> ParseError {
        let place = self.words.get(at).or(self.words.last()).map_or((1, 1), |w| (w.line, w.column));
        ParseError::new(place.0, place.1, expected, found)
    }

    fn unexpected<T>(&self, expected: impl Into<String>) -> Parsed<T> {
        let found =
            if self.at >= self.words.len() { "the end of the text".into() } else { self.peek().shown() };
        Err(self.error_at(self.at, expected, found))
    }

    fn mark(&mut self, m: &'static str) -> Parsed<()> {
        if *self.peek() == Token::Mark(m) {
            self.at += 1;
            return Ok(());
        }
        self.unexpected(format!("`{m}`"))
    }

    fn takes(&mut self, m: &'static str) -> bool {
        let there = *self.peek() == Token::Mark(m);
        self.at += usize::from(there);
        there
    }

    fn end(&mut self) -> Parsed<()> {
        if *self.peek() != Token::End {
            return self.unexpected("the end of the line");
        }
        self.at += 1;
        Ok(())
    }

    fn text(&mut self, what: &str) -> Parsed<String> {
        match self.peek() {
            Token::Text(t) => {
                let t = t.clone();
                self.at += 1;
                Ok(t)
            }
            _ => self.unexpected(format!("{what} in quotes")),
        }
    }

    /// A word that `f` understands.
    fn word<T>(&mut self, what: impl Into<String>, f: impl FnOnce(&str) -> Option<T>) -> Parsed<T> {
        if let Token::Word(w) = self.peek()
            && let Some(v) = f(w)
        {
            self.at += 1;
            return Ok(v);
        }
        self.unexpected(what)
    }

    /// `item, item, ..` up to `close`.
    fn list<T>(
        &mut self,
        close: &'static str,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut out = Vec::new();
        if self.takes(close) {
            return Ok(out);
        }
        loop {
            out.push(item(self)?);
            if self.takes(close) {
                return Ok(out);
            }
            if !self.takes(",") {
                return self.unexpected(format!("`,` or `{close}`"));
            }
        }
    }

    fn id(&mut self) -> Parsed<ValueId> {
        self.word("a value such as v3", |w| w.strip_prefix('v')?.parse().ok()).map(ValueId)
    }

    fn ty(&mut self) -> Parsed<TensorType> {
        let names = DType::ALL.map(DType::name).join(", ");
        let dtype = self.word(format!("an element type ({names})"), DType::from_name)?;
        self.mark("[")?;
        let at = self.at;
        let dim = |w: &str| sym(w)?.dim();
        let shape: Vec<Dim> = self.list("]", |p| p.word("a dimension such as 3, N or 2N", dim))?;
        let ty = TensorType { dtype, shape };
        let found = ty.to_string();
        check::size(&ty)
            .map_err(|_| self.error_at(at, format!("at most {MAX_RANK} axes and 2^31 elements"), found))?;
        Ok(ty)
    }

    /// `v3 "name" f32[2]`, not yet among the values.
    fn declaration(&mut self) -> Parsed<(ValueId, String, TensorType)> {
        let at = self.at;
        let id = self.id()?;
        if self.values.contains_key(&id.0) {
            return Err(self.error_at(at, "a value that is not there yet", format!("v{}", id.0)));
        }
        Ok((id, self.text("the value's name")?, self.ty()?))
    }

    fn graph(&mut self) -> Parsed<Graph> {
        self.word("`graph`", |w| (w == "graph").then_some(()))?;
        let name = self.text("the graph's name")?;
        let stages = Stage::ALL.map(Stage::name).join(", ");
        let stage =
            self.word(format!("a stage ({stages})"), |w| Stage::ALL.into_iter().find(|s| s.name() == w))?;
        self.end()?;
        let target = self.target()?;
        let (mut inputs, mut outputs, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        while self.at < self.words.len() {
            match self.peek() {
                Token::Word(w) if w == "input" => {
                    self.at += 1;
                    let (id, name, ty) = self.declaration()?;
                    self.values.insert(id.0, Value { name, ty, constant: None });
                    inputs.push(id);
                }
                Token::Word(w) if w == "const" => {
                    self.at += 1;
                    self.constant()?;
                }
                Token::Word(w) if w == "output" => {
                    self.at += 1;
                    outputs.push(self.id()?);
                }
                Token::Word(w) if w.starts_with('%') => nodes.push(self.node()?),
                _ => return self.unexpected("`input`, `const`, `output` or a node such as %3"),
            }
            self.end()?;
        }
        let whole = (0u32..).zip(self.values.keys()).find(|(i, id)| i != *id);
        if let Some((i, _)) = whole {
            let found = "none with it although there are higher ones";
            return Err(self.error_at(usize::MAX, format!("a value v{i}"), found));
        }
        let values = std::mem::take(&mut self.values).into_values().collect();
        Graph::from_parts(name, stage, target, values, nodes, inputs, outputs)
            .map_err(|e| self.error_at(usize::MAX, "a graph that keeps the rules", e.to_string()))
    }

    /// `target 4 "name = .."`, where it is there.
    fn target(&mut self) -> Parsed<Option<Target>> {
        if self.at >= self.words.len() || !matches!(self.peek(), Token::Word(w) if w == "target") {
            return Ok(None);
        }
        self.at += 1;
        let level = self.word("a level from 0 to 4", |w| w.parse().ok().filter(|l| *l <= 4))?;
        let at = self.at;
        let text = self.text("the TOML of a profile")?;
        let profile =
            Profile::parse(&text).map_err(|e| self.error_at(at, "the TOML of a profile", e.to_string()))?;
        self.end()?;
        Ok(Some(Target { profile, level }))
    }

    fn constant(&mut self) -> Parsed<()> {
        let (id, name, ty) = self.declaration()?;
        let at = self.at;
        let tensor = if self.takes("[") {
            self.elements(&ty, at)?
        } else {
            self.word("`[` or `hash`", |w| (w == "hash").then_some(()))?;
            let at = self.at;
            let hash = self.word("32 hexadecimal digits", |w| u128::from_str_radix(w, 16).ok())?;
            let found = ContentHash(hash);
            match self.constants.get(&found) {
                Some(t) => t.clone(),
                None => return Err(self.error_at(at, "the hash of a given constant", found.to_string())),
            }
        };
        if tensor.ty() != ty {
            return Err(self.error_at(at, ty.to_string(), tensor.ty().to_string()));
        }
        self.values.insert(id.0, Value { name, ty, constant: Some(tensor) });
        Ok(())
    }

    fn elements(&mut self, ty: &TensorType, at: usize) -> Parsed<Tensor> {
        let Some(shape) = ty.dims() else {
            return Err(self.error_at(at, "a constant without N", ty.to_string()));
        };
        let n: usize = shape.iter().product();
        let counted = |p: &Self, got: usize| {
            (got == n).then_some(()).ok_or_else(|| p.error_at(at, format!("{n} elements"), got.to_string()))
        };
        macro_rules! of {
            ($new:ident, $what:literal, $f:expr) => {{
                let v = self.list("]", |p| p.word($what, $f))?;
                counted(self, v.len())?;
                Tensor::$new(shape, v)
            }};
        }
        Ok(match ty.dtype {
            DType::F32 => of!(from_f32, "a number", number::parse),
            DType::Bool => of!(from_bool, "0 or 1", |w| w.parse().ok().filter(|v| *v < 2)),
            dtype => {
                let (low, high) = dtype.limits().expect("an integer type");
                let what = format!("an integer in {low}..={high}");
                let v = self
                    .list("]", |p| p.word(&what, |w| w.parse().ok().filter(|v| (low..=high).contains(v))))?;
                counted(self, v.len())?;
                Tensor::from_codes(dtype, &shape, &v).expect("they were counted and are in range")
            }
        })
    }

    fn node(&mut self) -> Parsed<Node> {
        let start = self.at;
        let id = self.word("a node such as %3", |w| w.strip_prefix('%')?.parse().ok()).map(NodeId)?;
        let name = self.text("the node's name")?;
        let mut source = None;
        // `from` before a string; an operator may have that name.
        if *self.peek() == Token::Word("from".into())
            && matches!(self.words.get(self.at + 1).map(|w| &w.token), Some(Token::Text(_)))
        {
            self.at += 1;
            source = Some(self.text("the name in the file")?);
        }
        let ops = self.ops;
        let def = self.word("an operator", ops)?;
        self.mark("(")?;
        let inputs = self.list(")", |p| {
            let at = p.at;
            let id = p.id()?;
            if p.values.contains_key(&id.0) {
                return Ok(id);
            }
            Err(p.error_at(at, "a value of a line above", format!("v{}", id.0)))
        })?;
        let attrs = if self.takes("{") {
            Attrs::from(self.list("}", |p| {
                let name = p.word("an attribute", |w| Some(w.to_owned()))?;
                p.mark("=")?;
                Ok((name, p.attribute()?))
            })?)
        } else {
            Attrs::new()
        };
        self.mark("->")?;
        let mut outputs = Vec::new();
        let mut declared = Vec::new();
        loop {
            let (id, name, ty) = self.declaration()?;
            if outputs.contains(&id) {
                return Err(self.error_at(start, "outputs that differ", format!("v{} twice", id.0)));
            }
            outputs.push(id);
            declared.push((id, Value { name, ty, constant: None }));
            if !self.takes(",") {
                break;
            }
        }
        let types = inputs.iter().map(|v| Some(Input { ty: self.values[&v.0].ty.clone(), known: None }));
        let mut r = Reader::new(Source::Graph, def.name, attrs, types.collect(), outputs.len());
        let op = (def.read)(&mut r);
        let op =
            op.map_err(|e| self.error_at(start, format!("attributes of {}", def.name), e.to_string()))?;
        if let Some((name, value)) = r.unread().first() {
            let found = format!("{name} = {value}");
            return Err(self.error_at(start, format!("attributes of {}", def.name), found));
        }
        self.values.extend(declared.into_iter().map(|(id, v)| (id.0, v)));
        Ok(Node { id, name, source, op, inputs, outputs })
    }

    fn attribute(&mut self) -> Parsed<AttrValue> {
        if let Token::Text(t) = self.peek() {
            let t = t.clone();
            self.at += 1;
            return Ok(AttrValue::Str(t));
        }
        if !self.takes("[") {
            return self.word("an integer, a number, a string or a list", scalar);
        }
        match self.peek() {
            Token::Text(_) => self.list("]", |p| p.text("a string")).map(AttrValue::Strs),
            Token::Word(w) if sym(w).is_none() => {
                self.list("]", |p| p.word("a number", number::parse)).map(AttrValue::Floats)
            }
            _ => self.list("]", |p| p.word("an integer, N or 2N", sym)).map(AttrValue::Ints),
        }
    }
}

fn sym(w: &str) -> Option<SymInt> {
    match w.strip_suffix('N') {
        Some("") => Some(SymInt::Batch(1)),
        Some(k) => k.parse().ok().filter(|k| *k > 0).map(SymInt::Batch),
        None => w.parse().ok().map(SymInt::Int),
    }
}

fn scalar(w: &str) -> Option<AttrValue> {
    match w.parse() {
        Ok(v) => Some(AttrValue::Int(v)),
        Err(_) => number::parse(w).map(AttrValue::Float),
    }
}
