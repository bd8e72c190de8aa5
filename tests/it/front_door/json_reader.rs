//! A strict reader of JSON bodies, written from RFC 8259 for these tests alone: what the fields say that a gateway reads,
//! or that a body does not say it in one way only.

/// What a body says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    /// `model`; `None`: there is none.
    pub(crate) model: Option<String>,
    pub(crate) stream: bool,
}

/// Reads a body. `None`: it is not one JSON object, or its `model` or `stream` could be read in two ways.
pub(crate) fn read(body: &[u8]) -> Option<Reading> {
    let text = std::str::from_utf8(body).ok()?;
    let mut reader = Reader { text: text.as_bytes(), at: 0 };
    let members = reader.whole()?;
    let named = |name: &str| {
        let fold = |letter: char| if letter == 'ſ' { 's' } else { letter.to_ascii_lowercase() };
        let like: Vec<_> = members.iter().filter(|(key, _)| key.chars().map(fold).eq(name.chars())).collect();
        match like[..] {
            [] => Some(None),
            [(key, value)] if key == name => Some(Some(*value)),
            _ => None,
        }
    };
    let model = match named("model")? {
        None => None,
        Some(value) => Some(decoded(value)?),
    };
    let stream = match named("stream")? {
        None | Some(b"null" | b"false") => false,
        Some(b"true") => true,
        Some(_) => return None,
    };
    Some(Reading { model, stream })
}

/// A string's text; `None`: it is no string, or holds half of a surrogate pair.
fn decoded(value: &[u8]) -> Option<String> {
    let inner = std::str::from_utf8(value).ok()?.strip_prefix('"')?.strip_suffix('"')?;
    let (mut units, mut letters) = (Vec::<u16>::new(), inner.chars());
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            units.extend(letter.encode_utf16(&mut [0; 2]).iter());
            continue;
        }
        units.push(match letters.next()? {
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'u' => (0..4).try_fold(0, |sum, _| Some(sum * 16 + u16::try_from(letters.next()?.to_digit(16)?).ok()?))?,
            itself => u16::try_from(u32::from(itself)).ok()?,
        });
    }
    String::from_utf16(&units).ok()
}

struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// The members of the one object that the text is.
    fn whole(&mut self) -> Option<Vec<(String, &'a [u8])>> {
        self.blanks();
        self.byte(b'{')?;
        let (mut members, mut first) = (Vec::new(), true);
        loop {
            self.blanks();
            if self.byte(b'}').is_some() {
                // A comma before the brace is none of JSON's.
                if !first && self.text[..self.at - 1].trim_ascii_end().ends_with(b",") {
                    return None;
                }
                break;
            }
            if !first {
                self.byte(b',')?;
                self.blanks();
            }
            first = false;
            let key = self.string()?;
            self.blanks();
            self.byte(b':')?;
            self.blanks();
            members.push((decoded(key)?, self.value()?));
        }
        self.blanks();
        (self.at == self.text.len()).then_some(members)
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn byte(&mut self, wanted: u8) -> Option<()> {
        (self.peek()? == wanted).then(|| self.at += 1)
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let begun = self.at;
        self.byte(b'"')?;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(&self.text[begun..self.at]);
                }
                b'\\' => {
                    let four = self.text.get(self.at + 2..self.at + 6);
                    let fits = four.is_some_and(|four| four.iter().all(u8::is_ascii_hexdigit));
                    self.at += match self.text.get(self.at + 1)? {
                        b'u' if fits => 6,
                        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
                        _ => return None,
                    };
                }
                ..0x20 => return None,
                _ => self.at += 1,
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.byte(b'-');
        if self.byte(b'0').is_none() {
            self.digits()?;
        }
        if self.byte(b'.').is_some() {
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let begun = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > begun).then_some(())
    }

    /// One value of any depth, without recursion.
    fn value(&mut self) -> Option<&'a [u8]> {
        let begun = self.at;
        let mut open = Vec::new();
        loop {
            self.blanks();
            match self.peek()? {
                bracket @ (b'[' | b'{') => {
                    self.at += 1;
                    open.push(bracket);
                    self.blanks();
                    match (bracket, self.peek()?) {
                        (b'[', b']') | (b'{', b'}') => {
                            self.at += 1;
                            open.pop();
                        }
                        (b'{', _) => {
                            self.key()?;
                            continue;
                        }
                        _ => continue,
                    }
                }
                b'"' => drop(self.string()?),
                b'-' | b'0'..=b'9' => self.number()?,
                _ => {
                    let literal = ["true", "false", "null"];
                    let found = literal.iter().find(|word| self.text[self.at..].starts_with(word.as_bytes()))?;
                    self.at += found.len();
                }
            }
            // A value has ended: its containers end with it, or go on.
            loop {
                let Some(container) = open.last() else { return Some(&self.text[begun..self.at]) };
                self.blanks();
                match (container, self.peek()?) {
                    (b'[', b']') | (b'{', b'}') => {
                        self.at += 1;
                        open.pop();
                    }
                    (b'[', b',') => {
                        self.at += 1;
                        break;
                    }
                    (b'{', b',') => {
                        self.at += 1;
                        self.blanks();
                        self.key()?;
                        break;
                    }
                    _ => return None,
                }
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        let key = self.string()?;
        let _ = key;
        self.blanks();
        self.byte(b':')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reader_reads_what_is_right_and_nothing_else() {
        let model = |body: &str| read(body.as_bytes()).map(|reading| reading.model.unwrap_or_default());
        for (body, name) in [
            ("{}", ""),
            (r#" {"model" : "m" } "#, "m"),
            (r#"{"a":[{"b":[]},[1,-0.5e+7,null,{"c":{}}]],"model":"\u006d\ud83d\ude00\n"}"#, "m😀\n"),
            (r#"{"n":1,"n":2,"model":"m","t":"\ud800"}"#, "m"),
        ] {
            assert_eq!(model(body).as_deref(), Some(name), "{body}");
        }
        for bad in [
            "",
            "[]",
            "{}x",
            "{} {}",
            "{,}",
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            r#"{"a":.5}"#,
            r#"{"a":+1}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":{"b":1,}}"#,
            r#"{"a" 1}"#,
            r#"{a:1}"#,
            r#"{"a":NaN}"#,
            r#"{"a":"\x"}"#,
            "{\"a\":\"\t\"}",
            r#"{"a":[}"#,
            r#"{"a":[1}"#,
            r#"{"a":"\u12"}"#,
            r#"{"model":1}"#,
            r#"{"model":"\ud800"}"#,
            r#"{"model":"a","model":"a"}"#,
            r#"{"Model":"a"}"#,
            r#"{"stream":"true"}"#,
            r#"{"ſtream":true}"#,
        ] {
            assert_eq!(model(bad), None, "{bad}");
        }
    }
}
