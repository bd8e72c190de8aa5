//! What the YAML parser refuses, in an operator's words: what is wrong, and what would be right.

use serde_saphyr::granit_parser::ErrorKind;

use super::tree::DEPTH_MAX;

/// What is wrong and what would be right. `opened` is the line of the innermost bracket that is still open.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other kinds are in the two tables below")]
pub(super) fn explained(kind: &ErrorKind, opened: Option<usize>) -> String {
    use ErrorKind as K;
    match kind {
        K::UnexpectedCharacter { character } if character.is_ascii_graphic() => {
            let what = format!("no value without quotes begins with `{character}`");
            format!("{what}; put the value in quotes, as in `\"{character}…\"`")
        }
        K::UnexpectedCharacter { character } => {
            let code = u32::from(*character);
            format!("the character U+{code:04X} is not allowed in YAML; take it out, and name a text file")
        }
        K::MismatchedFlowCollectionEnd { open, close } => {
            format!("`{open}` is closed by `{close}`; close it with `{}`", closing(*open))
        }
        K::UnclosedFlowCollection { open } => {
            format!("`{open}` is not closed; write `{}` where it ends", closing(*open))
        }
        K::ExpectedFlowMappingSeparator | K::ExpectedFlowSequenceSeparator | K::InvalidColonPlacement => {
            let line = opened.map(|line| format!(" on line {line}")).unwrap_or_default();
            format!(
                "a bracket that is opened{line} is not closed before this, or a comma is missing; write `{{ a: b, c: d }}` \
                 or `[a, b]`, and put a value that holds one of `[]{{}},` in quotes"
            )
        }
        K::RecursionLimitExceeded => {
            format!(
                "more than {DEPTH_MAX} lists and sections stand inside each other; a configuration needs six, take some out"
            )
        }
        _ => match lines_and_brackets(kind).or_else(|| values(kind)) {
            Some((what, right)) => format!("{what}; {right}"),
            None => format!("{kind}; write this line as config/tollgate.yaml shows it"),
        },
    }
}

/// Where the refusal stands, line and column: where the parser says, or at the tab, which the parser names by the text
/// before it.
pub(super) fn position(kind: &ErrorKind, said: (usize, usize), text: &str) -> (usize, usize) {
    if !is_tab(kind) {
        return said;
    }
    let lines = text.lines().enumerate().skip(said.0.saturating_sub(1));
    let indented_by_tab = |line: &str| {
        let spaces = line.chars().take_while(|c| *c == ' ').count();
        (line.chars().nth(spaces) == Some('\t')).then_some(spaces + 1)
    };
    let found = lines.filter_map(|(index, line)| Some((index + 1, indented_by_tab(line)?))).next();
    found.unwrap_or(said)
}

fn is_tab(kind: &ErrorKind) -> bool {
    use ErrorKind as K;
    matches!(
        kind,
        K::TabNotAllowed
            | K::TabInBlockIndentation
            | K::TabInIndentation
            | K::TabInPlainScalar
            | K::TabAtBlockScalarStart
    )
}

fn closing(open: char) -> char {
    if open == '[' { ']' } else { '}' }
}

type Words = Option<(&'static str, &'static str)>;

/// Of how lines, keys, items and brackets stand to each other.
#[expect(clippy::wildcard_enum_match_arm, reason = "one of two tables of an enum that can grow")]
fn lines_and_brackets(kind: &ErrorKind) -> Words {
    use ErrorKind as K;
    let words = match kind {
        kind if is_tab(kind) => ("a tab stands where YAML allows spaces alone", "indent with spaces"),
        K::SimpleKeyExpected | K::InvalidSimpleKey => {
            ("no key, because no colon follows", "write `key: value`, with a colon and a space")
        }
        K::MappingValueNotAllowed => (
            "a `:` where none can be",
            "write `key: value` on a line of its own, with a space after the colon, indent all keys of a section alike, and \
             put a value with `: ` in it in quotes",
        ),
        K::MappingKeyNotAllowed => ("`? ` begins a key where none can be", "put the value in quotes"),
        K::ExpectedBlockMappingKey | K::UnexpectedEofBlockMapping => (
            "not a key as the lines before it have one",
            "indent all keys of a section alike, and write either keys or items (`- `) there",
        ),
        K::ExpectedBlockSequenceEntry | K::UnexpectedEofBlockSequence => (
            "not an item of the list that stands before it",
            "begin each item with `- `, all indented alike, and indent all keys of an item alike",
        ),
        K::BlockSequenceEntryNotAllowed => (
            "an item of a list where none can be",
            "begin each item with `- ` on a line of its own, or write `[a, b]`; put a value that begins with `- ` in quotes",
        ),
        K::BlockEntryInFlowCollection => ("`- ` inside brackets", "write items between brackets as in `[a, b]`"),
        K::InvalidBlockEntryWhitespace | K::InvalidMappingValueWhitespace | K::FlowMappingValueAdjacentCollection => {
            ("no space follows the `:` or `-`", "write one space")
        }
        K::UnexpectedEofFlowSequence | K::UnexpectedEofFlowMapping | K::UnexpectedEofImplicitFlowMapping => {
            ("a value is missing between brackets", "write one, or take the comma out; write `\"\"` for an empty text")
        }
        K::MisplacedFlowCollectionEnd => {
            ("no bracket is open that this one could close", "take it out, or put the value in quotes")
        }
        K::CommentNotSeparated | K::ExpectedWhitespace => {
            ("a value goes on without a space", "write a space before `#`, or put the value in quotes")
        }
        K::CommentInterceptedScalar => {
            ("a value goes on after a comment", "write the value on one line, and the comment above it")
        }
        _ => return None,
    };
    Some(words)
}

/// Of single values, and of what YAML has beside them.
#[expect(clippy::wildcard_enum_match_arm, reason = "one of two tables of an enum that can grow")]
fn values(kind: &ErrorKind) -> Words {
    use ErrorKind as K;
    let words = match kind {
        K::InvalidIndentation | K::InvalidFlowScalarIndent | K::InvalidQuotedScalarIndent => {
            ("a text whose quote was opened above goes on here", "close the quote on the line where it was opened")
        }
        K::UnclosedQuotedScalar | K::DocumentIndicatorInQuotedScalar => {
            ("a quote is not closed", "close it on the line where it was opened")
        }
        K::InvalidTrailingSingleQuotedScalar => (
            "something follows the closing quote",
            "put the whole value in quotes, write `''` for a quote in it, and a comma between two values",
        ),
        K::InvalidTrailingDoubleQuotedScalar => (
            "something follows the closing quote",
            "put the whole value in quotes, write `\\\"` for a quote in it, and a comma between two values",
        ),
        K::UnknownQuotedScalarEscape
        | K::InvalidQuotedScalarHexEscape
        | K::InvalidLowSurrogateHexEscape
        | K::InvalidLowSurrogate
        | K::MissingLowSurrogate
        | K::UnpairedLowSurrogate
        | K::InvalidUnicodeEscape => (
            "a `\\` in this text stands before what is no escape",
            "write `\\\\` for a backslash, or single quotes around the text",
        ),
        K::ZeroBlockScalarIndent | K::InvalidBlockScalarHeader | K::InvalidBlockScalarIndent => (
            "not a text as `|` or `>` begins one",
            "write nothing else on its line and indent the lines below alike, with spaces; or put the value in quotes",
        ),
        K::PlainScalarStartsWithDashFlowIndicator | K::UnexpectedEndOfPlainScalar | K::ExpectedNodeContent => {
            ("no value can begin so", "put the value in quotes")
        }
        K::UnknownAnchor => (
            "`*` names a value that no `&` above it does",
            "write the value out, or in quotes if the `*` belongs to it",
        ),
        K::MissingAnchorOrAliasName => {
            ("`*` or `&` without a name after it", "put a value that begins with one of them in quotes")
        }
        K::ExpectedTagBang
        | K::InvalidGlobalTagCharacter
        | K::InvalidTagTerminator
        | K::MissingTagUri
        | K::UnclosedVerbatimTag
        | K::InvalidTagEscape
        | K::InvalidTagUtf8LeadingByte
        | K::InvalidTagUtf8TrailingByte
        | K::InvalidTagUtf8
        | K::UndeclaredTagHandle => {
            ("a value that begins with `!` is a tag, which means nothing here", "put the value in quotes")
        }
        _ => return outside(kind),
    };
    Some(words)
}

/// Of what stands outside of the one document.
#[expect(clippy::wildcard_enum_match_arm, reason = "all others cannot come from a text that is in memory")]
fn outside(kind: &ErrorKind) -> Words {
    use ErrorKind as K;
    let words = match kind {
        K::BomInsideDocument => {
            ("a byte order mark inside the file", "take it out: it may only be the file's first sign")
        }
        K::InvalidDocumentEnd => ("something follows `...` on its line", "take the `...` out"),
        K::ExpectedDocumentStart => (
            "this is not part of what stands before it",
            "write the whole file as `key: value`, and take lines that begin with `%` out",
        ),
        K::DirectiveDisallowed
        | K::DirectiveByteLimitExceeded { .. }
        | K::DuplicateTagDirective
        | K::DuplicateVersionDirective
        | K::ExpectedTagDirectiveBang
        | K::InvalidDirectiveName
        | K::InvalidDirectiveTerminator
        | K::InvalidTagDirectiveTerminator
        | K::MissingDirectiveName
        | K::MissingDocumentEndBeforeDirective
        | K::MissingYamlVersion
        | K::MissingYamlVersionSeparator
        | K::TooManyReservedDirectiveParams { .. }
        | K::UnsupportedYamlMajorVersion
        | K::YamlVersionTooLong => {
            ("a line that begins with `%` is a directive, of which a configuration needs none", "take the line out")
        }
        _ => return None,
    };
    Some(words)
}
