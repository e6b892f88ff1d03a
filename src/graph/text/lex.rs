//! Words of the text form, each with its place.

use super::ParseError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Letters, digits and what numbers and ids are made of.
    Word(String),
    /// A JSON string, unescaped.
    Text(String),
    /// `-> ( ) [ ] { } , =`
    Mark(&'static str),
    /// End of a line.
    End,
}

impl Token {
    pub(super) fn shown(&self) -> String {
        match self {
            Token::Word(w) => format!("`{w}`"),
            Token::Text(t) => format!("{t:?}"),
            Token::Mark(m) => format!("`{m}`"),
            Token::End => "the end of the line".to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub token: Token,
    pub line: usize,
    pub column: usize,
}

const MARKS: [&str; 9] = ["->", "(", ")", "[", "]", "{", "}", ",", "="];

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '+' | '-' | ':' | '%')
}

pub(super) fn words(text: &str) -> Result<Vec<Placed>, ParseError> {
    let mut out = Vec::new();
    for (i, source) in text.lines().enumerate() {
        let line = i + 1;
        let mut rest = source;
        if rest.trim_start().starts_with('#') {
            continue;
        }
        let before = out.len();
        loop {
            rest = rest.trim_start();
            // Columns count characters from 1.
            let column = source[..source.len() - rest.len()].chars().count() + 1;
            let Some(first) = rest.chars().next() else {
                if out.len() > before {
                    out.push(Placed { token: Token::End, line, column });
                }
                break;
            };
            let (token, len) = if let Some(mark) = MARKS.into_iter().find(|m| rest.starts_with(m)) {
                (Token::Mark(mark), mark.len())
            } else if first == '"' {
                text_token(rest).ok_or_else(|| ParseError::new(line, column, "a string that ends", "none"))?
            } else {
                let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
                // `x->y` is two words.
                let end = rest[..end].find("->").unwrap_or(end);
                if end == 0 {
                    return Err(ParseError::new(
                        line,
                        column,
                        "a word, a string or a mark",
                        format!("{first:?}"),
                    ));
                }
                (Token::Word(rest[..end].to_owned()), end)
            };
            out.push(Placed { token, line, column });
            rest = &rest[len..];
        }
    }
    Ok(out)
}

/// A JSON string and its length in bytes.
fn text_token(rest: &str) -> Option<(Token, usize)> {
    let mut escaped = false;
    let end = rest.char_indices().skip(1).find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    })?;
    let len = end.0 + 1;
    serde_json::from_str(&rest[..len]).ok().map(|t| (Token::Text(t), len))
}
