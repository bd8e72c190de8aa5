//! Which of our two languages does a caller read? By `Accept-Language` (RFC 9110 section 12.5.4).

/// A language that our own messages have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Language {
    /// English: whoever says nothing else.
    #[default]
    English,
    /// Simplified Chinese.
    Chinese,
}

/// Ranges that are looked at; browsers send a handful.
const RANGES_MAX: usize = 32;

impl Language {
    /// As `Content-Language` names it.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Chinese => "zh-CN",
        }
    }

    /// The one that a caller likes best, of the ranges in the lines of its `Accept-Language`. `zh` and those below it are
    /// Chinese, but for the traditional script's; everything else is served in English, which wins a tie unless Chinese
    /// stands before it. A range that is malformed says nothing.
    pub fn preferred<'l>(lines: impl Iterator<Item = &'l [u8]>) -> Self {
        let text = lines.filter_map(|line| std::str::from_utf8(line).ok());
        let ranges = text.flat_map(|line| line.split(',')).take(RANGES_MAX).filter_map(range);
        let (mut chinese, mut english, mut any) = (None, None, None);
        for (order, (tag, weight)) in ranges.enumerate() {
            let place = match tag {
                _ if is_chinese(tag) => &mut chinese,
                "*" => &mut any,
                _ if primary(tag).eq_ignore_ascii_case("en") => &mut english,
                _ => continue,
            };
            let better = place.is_none_or(|(best, _)| weight > best);
            if better {
                *place = Some((weight, order));
            }
        }
        let english = english.or(any).filter(|(weight, _)| *weight > 0);
        match (chinese.filter(|(weight, _)| *weight > 0), english) {
            (Some((chinese, at)), Some((english, other))) => {
                let first = chinese > english || (chinese == english && at < other);
                if first { Self::Chinese } else { Self::English }
            }
            (Some(_), None) => Self::Chinese,
            (None, _) => Self::English,
        }
    }
}

/// The part of a tag before its first hyphen.
fn primary(tag: &str) -> &str {
    tag.split('-').next().unwrap_or_default()
}

fn is_chinese(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let traditional = |part: &str| ["hant", "tw", "hk", "mo"].iter().any(|other| part.eq_ignore_ascii_case(other));
    let simplified = |part: &str| part.eq_ignore_ascii_case("hans");
    parts.next().is_some_and(|first| first.eq_ignore_ascii_case("zh"))
        && (parts.clone().any(simplified) || !parts.any(traditional))
}

/// A range and its weight in thousandths.
fn range(element: &str) -> Option<(&str, u16)> {
    let mut parts = element.split(';').map(|part| part.trim_matches([' ', '\t']));
    let tag = parts.next().filter(|tag| !tag.is_empty())?;
    let weight = match parts.next() {
        None => 1000,
        Some(parameter) => {
            let (name, value) = parameter.split_once('=')?;
            if !name.trim_end().eq_ignore_ascii_case("q") || parts.next().is_some() {
                return None;
            }
            thousandths(value.trim_start())?
        }
    };
    Some((tag, weight))
}

/// `0`, `1`, or with up to three digits behind the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let part: u16 = format!("{part:0<3}").parse().ok()?;
    match (whole, part) {
        ("0", part) => Some(part),
        ("1", 0) => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Language) {
        assert_eq!(Language::preferred([line.as_bytes()].into_iter()), expected, "{line:?}");
    }

    #[test]
    fn chinese_is_for_those_who_read_it() {
        for line in [
            "zh",
            "zh-CN",
            "ZH-cn",
            "zh-Hans",
            "zh-Hans-CN",
            "zh-Hans-TW",
            "zh-SG",
            "zh-CN,zh;q=0.9,en;q=0.8",
            "zh,en",
            "en;q=0.8, zh;q=0.9",
            "fr, zh;q=0.5",
            "zh;q=0.5",
            "de,fr;q=0.9,zh;q=0.1",
            "zh-CN, *;q=0.5",
            "en;q=0, zh;q=0.001",
            "zh;q=1.000,en;q=1",
            " zh-CN ; q=0.9 ,\ten ;\tq=0.8",
            "en;q=0.5,zh-TW;q=0.9,zh-CN;q=0.6",
            "*;q=0.1,zh",
        ] {
            check(line, Language::Chinese);
        }
    }

    #[test]
    fn everybody_else_gets_english() {
        for line in [
            "",
            "*",
            "en",
            "en-US,en;q=0.9",
            "en,zh",
            "en-US,en;q=0.9,zh-CN;q=0.8",
            "fr",
            "zh-TW",
            "zh-Hant",
            "zh-HK,zh-Hant;q=0.9,en;q=0.8",
            "zh;q=0",
            "zh;q=0.000, en;q=0.1",
            "zh;q=0.5, *;q=0.8",
            "zhx",
            "x-zh",
            "zh;q=2",
            "zh;q=0.1234",
            "zh;q=1.001",
            "zh;q=-1",
            "zh;q=",
            "zh;q",
            "zh;level=1",
            "zh;q=0.9;x",
            "zh;q=0.5,en;q=0.5x, en;q=0.6",
            ",,;,",
        ] {
            check(line, Language::English);
        }
        assert_eq!(Language::preferred(std::iter::empty()), Language::English);
        assert_eq!(Language::preferred([&b"\xff"[..]].into_iter()), Language::English);
        let far = format!("{}zh", "fr,".repeat(RANGES_MAX));
        check(&far, Language::English);
    }

    #[test]
    fn several_lines_are_one_list() {
        let lines = [&b"en;q=0.5"[..], b"zh;q=0.7"];
        assert_eq!(Language::preferred(lines.into_iter()), Language::Chinese);
    }
}
