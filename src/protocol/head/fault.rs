//! Why a request head is refused, in words for the caller. Statuses are the proxy's.

/// Why a request head is refused. What callers answer differently is a variant of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.reason())]
pub enum HeadFault {
    /// More than [`HEAD_BYTES_MAX`](super::HEAD_BYTES_MAX) bytes.
    TooLarge,
    /// More than [`FIELDS_MAX`](super::FIELDS_MAX) header lines.
    TooManyFields,
    /// `Upgrade`, or `Connection: upgrade`: websockets, h2c and their like.
    UpgradeOffered,
    /// An `Expect` that is not `100-continue`.
    ExpectationUnknown,
    /// Two parsers could read the head differently, or none can.
    Malformed(Malformed),
}

impl HeadFault {
    /// Returns what was wrong and what to send instead: lower case, no full stop, nothing of the
    /// caller's own bytes in it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "the request head is larger than 32 KiB; send fewer or shorter headers",
            Self::TooManyFields => "the request has more than 100 header lines; send fewer",
            Self::UpgradeOffered => "no protocol upgrade is offered here; send the request without upgrade",
            Self::ExpectationUnknown => "the only expectation met here is 100-continue; send no other expect header",
            Self::Malformed(malformed) => malformed.reason(),
        }
    }
}

impl From<Malformed> for HeadFault {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// The ways in which a head is malformed. All are answered alike; each has its own
/// [`reason`](Self::reason).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// The first byte cannot begin a request.
    NotHttp,
    /// More than one empty line before the request line.
    BlankLines,
    /// A line feed without a carriage return before it.
    BareLineFeed,
    /// A carriage return without a line feed after it.
    BareCarriageReturn,
    /// The bytes given are not one whole head.
    NotOneHead,
    /// Not method, one space, target, one space, version.
    RequestLine,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// The method is `CONNECT`.
    Connect,
    /// The method is `TRACE` or `TRACK`: an answer to it would show the seller's credential.
    Trace,
    /// A byte that no target may hold, or a fragment.
    TargetByte,
    /// Neither a path nor an absolute http(s) URL, nor `*` of an OPTIONS request.
    TargetForm,
    /// The target's authority is not what `Host` says.
    AuthorityDiffers,
    /// HTTP/1.1 without `Host`.
    HostMissing,
    /// Two `Host` lines.
    HostRepeated,
    /// An empty `Host`, or one that is not a name or address with an optional port.
    HostMalformed,
    /// A header line that begins with a blank.
    ObsoleteFold,
    /// A blank between a header's name and its colon.
    BlankBeforeColon,
    /// A header line without a colon.
    ColonMissing,
    /// A header line that begins with its colon.
    NameEmpty,
    /// A byte that no header name may hold.
    NameByte,
    /// An underscore in a header name: gateways behind us would read it as a hyphen.
    NameUnderscore,
    /// A name that is a framing or guarded header's but for its hyphens: some servers read it as that.
    NameResemblesGuarded,
    /// A control byte in a header value.
    ValueByte,
    /// Two `Content-Length` lines, equal ones too.
    LengthRepeated,
    /// A `Content-Length` that is not a plain number.
    LengthMalformed,
    /// A `Content-Length` above [`LENGTH_MAX`](super::LENGTH_MAX).
    LengthTooLarge,
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndEncoding,
    /// Two `Transfer-Encoding` lines.
    EncodingRepeated,
    /// A `Transfer-Encoding` other than `chunked`.
    EncodingUnknown,
    /// `Transfer-Encoding` in HTTP/1.0.
    EncodingTooOld,
    /// A `Connection` option that is not a token.
    ConnectionMalformed,
    /// `Connection` names a header that the gateway itself relies on.
    ConnectionNamesGuarded,
    /// Two `Authorization` lines.
    AuthorizationRepeated,
    /// A field of HTTP/1's connections in HTTP/2.
    ConnectionField,
    /// A `TE` other than `trailers` in HTTP/2.
    TeUnknown,
    /// A blank at the beginning or end of a value, in HTTP/2.
    ValuePadded,
    /// A scheme other than http and https.
    SchemeUnknown,
    /// `:authority` is not what `Host` says.
    HostDiffers,
    /// Two `Content-Type` lines: whether a body is read as JSON must not depend on which one counts.
    TypeRepeated,
}

impl Malformed {
    /// Returns what was wrong and what to send instead.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotHttp => "the bytes do not begin an http/1.1 request; if this was tls, use http:// here",
            Self::BlankLines => "more than one empty line before the request line; send none",
            Self::BareLineFeed => "a line ends with a bare line feed; end lines with carriage return and line feed",
            Self::BareCarriageReturn => "a carriage return stands alone; end lines with carriage return and line feed",
            Self::NotOneHead => "the request head has no end or text after it; end it with one empty line",
            Self::RequestLine => {
                "the request line is malformed; send method, target and version with one space between them"
            }
            Self::Version => "the http version is not served here; send HTTP/1.1 or HTTP/1.0",
            Self::Connect => "the CONNECT method is not served; this is no forward proxy",
            Self::Trace => "the TRACE method is not served; the answer to it would show headers that are not yours",
            Self::TargetByte => {
                "the request target holds a byte that must be percent-encoded, or a fragment; encode it or leave it out"
            }
            Self::TargetForm => "the request target must be a path that begins with /; * goes with OPTIONS alone",
            Self::AuthorityDiffers => {
                "the url in the request line names another host than the host header; send a path"
            }
            Self::HostMissing => "the host header is missing; send exactly one",
            Self::HostRepeated => "the host header is repeated; send exactly one",
            Self::HostMalformed => "the host header is empty or malformed; send a name or address and at most a port",
            Self::ObsoleteFold => "a header line begins with a blank; send each header on one line",
            Self::BlankBeforeColon => "a blank stands before a header's colon; put the colon right after the name",
            Self::ColonMissing => "a header line has no colon; send name, colon and value",
            Self::NameEmpty => "a header has no name; send name, colon and value",
            Self::NameByte => "a header name holds a byte that is not allowed; use letters, digits and hyphens",
            Self::NameUnderscore => "a header name holds an underscore; use a hyphen in its place",
            Self::NameResemblesGuarded => {
                "a header name is another header's but for its punctuation; use that header, or another name"
            }
            Self::ValueByte => "a header value holds a control byte; remove or encode it",
            Self::LengthRepeated => "the content-length header is repeated; send exactly one",
            Self::LengthMalformed => {
                "the content-length is not a plain decimal number; send digits without sign, list or leading zeros"
            }
            Self::LengthTooLarge => "the content-length is too large; send a smaller body",
            Self::LengthAndEncoding => "content-length and transfer-encoding stand together; send one of them",
            Self::EncodingRepeated => "the transfer-encoding header is repeated; send it once, as chunked",
            Self::EncodingUnknown => "the transfer-encoding is not chunked; send chunked or a content-length",
            Self::EncodingTooOld => "http/1.0 has no transfer-encoding; send a content-length or http/1.1",
            Self::ConnectionMalformed => "the connection header is malformed; send options like close or keep-alive",
            Self::ConnectionNamesGuarded => {
                "the connection header names a header that must reach the gateway; take that name out of it"
            }
            Self::ConnectionField => {
                "http/2 has no connection headers; leave out connection, transfer-encoding and alike"
            }
            Self::TeUnknown => "the te header may only say trailers in http/2; leave it out",
            Self::ValuePadded => "a header value begins or ends with a blank; leave the blank out",
            Self::HostDiffers => "the host header names another host than the authority; leave the host header out",
            Self::SchemeUnknown => "the scheme is not served here; send http or https",
            Self::AuthorizationRepeated => "the authorization header is repeated; send exactly one",
            Self::TypeRepeated => "the content-type header is repeated; send exactly one",
        }
    }
}
