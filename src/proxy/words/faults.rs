//! The words of faults that the protocol's parsers find and say in English themselves: the same in Chinese, by their
//! English words. One that is not here is told by its code's own text, with the English words behind it.

use super::Text;

/// A fault in Chinese, by its English words.
pub(super) fn in_chinese(english: &str) -> Option<&'static str> {
    FAULTS.iter().find(|text| text.english == english).map(|text| text.chinese)
}

/// Each with its place in the table.
#[cfg(test)]
pub(super) fn all() -> impl Iterator<Item = (&'static str, &'static Text)> {
    FAULTS.iter().map(|text| ("a fault", text))
}

const fn text(english: &'static str, chinese: &'static str) -> Text {
    Text { english, chinese }
}

static FAULTS: &[Text] = &[
    // Heads.
    text(
        "the request head is larger than 32 KiB; send fewer or shorter headers",
        "请求头超过 32 KiB，请减少或缩短请求头",
    ),
    text("the request has more than 100 header lines; send fewer", "请求头超过 100 行，请减少请求头"),
    text(
        "no protocol upgrade is offered here; send the request without upgrade",
        "此处不支持协议升级，请去除 Upgrade 后重试",
    ),
    text(
        "the only expectation met here is 100-continue; send no other expect header",
        "仅支持 Expect: 100-continue，请去除其他 Expect 请求头",
    ),
    text(
        "the bytes do not begin an http/1.1 request; if this was tls, use http:// here",
        "收到的数据不是 HTTP/1.1 请求，如使用了 TLS，请改用 http://",
    ),
    text(
        "the TRACE method is not served; the answer to it would show headers that are not yours",
        "不支持 TRACE 方法，其响应会暴露不属于您的请求头",
    ),
    text(
        "a header name is another header's but for its punctuation; use that header, or another name",
        "请求头名称与其他请求头仅标点不同，请使用该请求头或更换名称",
    ),
    text("the content-type header is repeated; send exactly one", "Content-Type 请求头重复，请仅携带一个"),
    text(
        "http/2 has no connection headers; leave out connection, transfer-encoding and alike",
        "HTTP/2 不允许连接相关的请求头，请去除 Connection、Transfer-Encoding 等请求头",
    ),
    text("the te header may only say trailers in http/2; leave it out", "HTTP/2 中 TE 请求头只能为 trailers，请去除"),
    text("a header value begins or ends with a blank; leave the blank out", "请求头的值以空白开头或结尾，请去除空白"),
    text("the scheme is not served here; send http or https", "不支持该协议类型，请使用 http 或 https"),
    text(
        "the host header names another host than the authority; leave the host header out",
        "Host 请求头与请求的主机名不一致，请去除 Host 请求头",
    ),
    text("more than one empty line before the request line; send none", "请求行前存在多个空行，请去除空行"),
    text(
        "a line ends with a bare line feed; end lines with carriage return and line feed",
        "存在仅以换行符结尾的行，每行请以回车换行符结尾",
    ),
    text(
        "a carriage return stands alone; end lines with carriage return and line feed",
        "存在单独的回车符，每行请以回车换行符结尾",
    ),
    text(
        "the request head has no end or text after it; end it with one empty line",
        "请求头没有正确结束，请以一个空行结束请求头",
    ),
    text(
        "the request line is malformed; send method, target and version with one space between them",
        "请求行格式错误，请以单个空格分隔方法、请求目标和版本",
    ),
    text(
        "the http version is not served here; send HTTP/1.1 or HTTP/1.0",
        "不支持该 HTTP 版本，请使用 HTTP/1.1 或 HTTP/1.0",
    ),
    text("the CONNECT method is not served; this is no forward proxy", "不支持 CONNECT 方法，本服务不是正向代理"),
    text(
        "the request target holds a byte that must be percent-encoded, or a fragment; encode it or leave it out",
        "请求目标包含需要百分号编码的字节或片段标识，请编码或去除",
    ),
    text(
        "the request target must be a path that begins with /; * goes with OPTIONS alone",
        "请求目标必须是以 / 开头的路径，* 仅可用于 OPTIONS 方法",
    ),
    text(
        "the url in the request line names another host than the host header; send a path",
        "请求行中的 URL 与 Host 请求头不一致，请发送路径",
    ),
    text("the host header is missing; send exactly one", "缺少 Host 请求头，请发送且仅发送一个"),
    text("the host header is repeated; send exactly one", "Host 请求头重复，请仅发送一个"),
    text(
        "the host header is empty or malformed; send a name or address and at most a port",
        "Host 请求头为空或格式错误，请发送域名或地址，可附带端口",
    ),
    text(
        "a header line begins with a blank; send each header on one line",
        "存在以空白字符开头的请求头行，每个请求头请占一行",
    ),
    text(
        "a blank stands before a header's colon; put the colon right after the name",
        "请求头名称与冒号之间存在空白字符，请去除",
    ),
    text("a header line has no colon; send name, colon and value", "存在没有冒号的请求头行，请按“名称: 值”的格式发送"),
    text("a header has no name; send name, colon and value", "存在没有名称的请求头，请按“名称: 值”的格式发送"),
    text(
        "a header name holds a byte that is not allowed; use letters, digits and hyphens",
        "请求头名称包含非法字节，请使用字母、数字和连字符",
    ),
    text("a header name holds an underscore; use a hyphen in its place", "请求头名称包含下划线，请改用连字符"),
    text("a header value holds a control byte; remove or encode it", "请求头的值包含控制字符，请去除或编码"),
    text("the content-length header is repeated; send exactly one", "Content-Length 请求头重复，请仅发送一个"),
    text(
        "the content-length is not a plain decimal number; send digits without sign, list or leading zeros",
        "Content-Length 不是十进制数字，请发送不带符号、列表和前导零的数字",
    ),
    text("the content-length is too large; send a smaller body", "Content-Length 过大，请减小请求体"),
    text(
        "content-length and transfer-encoding stand together; send one of them",
        "Content-Length 与 Transfer-Encoding 同时存在，请仅发送其中一个",
    ),
    text(
        "the transfer-encoding header is repeated; send it once, as chunked",
        "Transfer-Encoding 请求头重复，请仅发送一个 chunked",
    ),
    text(
        "the transfer-encoding is not chunked; send chunked or a content-length",
        "Transfer-Encoding 不是 chunked，请使用 chunked 或 Content-Length",
    ),
    text(
        "http/1.0 has no transfer-encoding; send a content-length or http/1.1",
        "HTTP/1.0 不支持 Transfer-Encoding，请使用 Content-Length 或 HTTP/1.1",
    ),
    text(
        "the connection header is malformed; send options like close or keep-alive",
        "Connection 请求头格式错误，请使用 close、keep-alive 等选项",
    ),
    text(
        "the connection header names a header that must reach the gateway; take that name out of it",
        "Connection 请求头包含网关需要的请求头名称，请去除该名称",
    ),
    text("the authorization header is repeated; send exactly one", "Authorization 请求头重复，请仅发送一个"),
    // Paths.
    text("the path does not begin with /; send a path that does", "请求路径必须以 / 开头"),
    text(
        "the path holds an encoded slash, backslash or null; put such text into the query or body",
        "请求路径包含编码后的斜杠、反斜杠或空字符，请将此类内容放入查询参数或请求体",
    ),
    text("the path holds a backslash; use /", "请求路径包含反斜杠，请使用 /"),
    text(
        "the path holds a dot segment or an encoded dot; send the path it leads to",
        "请求路径包含 . 或 .. 路径段或编码后的点，请发送实际路径",
    ),
    text(
        "the path holds a % without two hexadecimal digits; write % itself as %25",
        "请求路径中的 % 后缺少两位十六进制数字，% 本身请写为 %25",
    ),
    // Bodies.
    text(
        "the body is not a JSON object; send one with the field `model`",
        "请求体不是 JSON 对象，请发送包含字段 `model` 的 JSON 对象",
    ),
    text(
        "the field `model` is longer than 256 bytes; send the model's name",
        "字段 `model` 超过 256 字节，请发送模型名称",
    ),
    text("the field `model` is not a string; send the model's name", "字段 `model` 不是字符串，请发送模型名称"),
    text("the field `stream` is not a boolean; send true or false", "字段 `stream` 不是布尔值，请发送 true 或 false"),
    // Credentials.
    text(
        "the authorization header names no scheme; send Bearer, a space and the key",
        "Authorization 请求头缺少认证方式，请使用 Bearer、空格和 API Key",
    ),
    text(
        "no key stands after Bearer; send Bearer, a space and the key",
        "Bearer 之后缺少 API Key，请使用 Bearer、空格和 API Key",
    ),
    text("the key holds a character that no key has; copy it again", "API Key 包含非法字符，请重新复制"),
    text("the key is longer than 512 bytes; copy it again", "API Key 超过 512 字节，请重新复制"),
    text(
        "the key is not one of this gateway; its keys begin with sk-tg-",
        "该 API Key 不属于本网关，本网关的 API Key 以 sk-tg- 开头",
    ),
    text(
        "the key has the wrong length; copy all of it, without what stands around it",
        "API Key 长度错误，请完整复制且不要包含前后内容",
    ),
    text("the key has a typo; copy it again", "API Key 拼写有误，请重新复制"),
    text(
        "an AppCode has 64 to 180 characters of A-Z a-z 0-9 + _ ! @ # $ % - / = and begins with a letter, a digit, + or /",
        "AppCode 长度为 64 至 180 个字符，可包含 A-Z a-z 0-9 + _ ! @ # $ % - / =，且以字母、数字、+ 或 / 开头",
    ),
    text(
        "the authorization header is malformed; send SDK-HMAC-SHA256 Access=<AppKey>, SignedHeaders=<a;b>, Signature=<64 lower-case hexadecimal digits>",
        "Authorization 请求头格式错误，请使用 SDK-HMAC-SHA256 Access=<AppKey>, SignedHeaders=<a;b>, Signature=<64 位小写十六进制数字>",
    ),
    text("SignedHeaders names a header twice, or more than 64", "SignedHeaders 中存在重复的请求头，或超过 64 个"),
    text(
        "exactly one x-sdk-date header is needed, and SignedHeaders must name it",
        "请求必须包含且仅包含一个 X-Sdk-Date 请求头，并将其列入 SignedHeaders",
    ),
    text(
        "x-sdk-date is malformed; write it in UTC like 20260115T083000Z",
        "X-Sdk-Date 格式错误，请使用 UTC 时间，例如 20260115T083000Z",
    ),
    text("x-sdk-content-sha256 is repeated; send it once", "x-sdk-content-sha256 重复，请仅发送一个"),
    text(
        "the body's SHA-256 is not the signed x-sdk-content-sha256",
        "请求体的 SHA-256 与已签名的 x-sdk-content-sha256 不一致",
    ),
    text(
        "UNSIGNED-PAYLOAD is not accepted here; sign the body's SHA-256",
        "此处不支持 UNSIGNED-PAYLOAD，请对请求体的 SHA-256 签名",
    ),
    // Chunks.
    text(
        "a chunk size is not a plain hexadecimal number; send digits, then carriage return and line feed",
        "分块大小不是十六进制数字，请发送数字，随后以回车换行符结尾",
    ),
    text("a chunk size is too large; send smaller chunks", "分块过大，请减小分块"),
    text("a chunk extension is malformed; send chunks without extensions", "分块扩展格式错误，请发送不带扩展的分块"),
    text("the chunk extensions are too long; send chunks without extensions", "分块扩展过长，请发送不带扩展的分块"),
    text(
        "a chunk line or chunk does not end with carriage return and line feed where its size says",
        "分块或分块行未按其大小以回车换行符结尾，请检查分块大小",
    ),
    text(
        "a trailer line is malformed; send name, colon and value, or no trailers",
        "尾部字段格式错误，请按“名称: 值”的格式发送，或不发送尾部字段",
    ),
    text(
        "a trailer holds a field that belongs into the head; send it there or not at all",
        "尾部字段包含应位于请求头的字段，请放入请求头或去除",
    ),
    text("the trailers are too large; send fewer", "尾部字段过大，请减少"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::api_key::KeyFault;
    use crate::protocol::app_text::AppTextFault;
    use crate::protocol::chat::BodyFault;
    use crate::protocol::credential::CredentialFault;
    use crate::protocol::head::HeadFault;
    use crate::protocol::signature::SignatureFault;
    use crate::protocol::target::TargetFault;

    #[test]
    fn the_words_of_the_parsers_are_those_of_the_table() {
        let said = [
            HeadFault::TooLarge.to_string(),
            HeadFault::TooManyFields.to_string(),
            HeadFault::UpgradeOffered.to_string(),
            HeadFault::ExpectationUnknown.to_string(),
            TargetFault::NotAPath.to_string(),
            TargetFault::EncodedSeparator.to_string(),
            TargetFault::Backslash.to_string(),
            TargetFault::DotSegment.to_string(),
            TargetFault::BadEscape.to_string(),
            BodyFault::NotAnObject.to_string(),
            BodyFault::ModelNotText.to_string(),
            BodyFault::StreamNotBoolean.to_string(),
            CredentialFault::SchemeMissing.to_string(),
            CredentialFault::TokenEmpty.to_string(),
            CredentialFault::TokenMalformed.to_string(),
            CredentialFault::TokenTooLong.to_string(),
            CredentialFault::NoAppCode(AppTextFault::Code).to_string(),
            KeyFault::NotOurs.to_string(),
            KeyFault::WrongLength.to_string(),
            KeyFault::BadCharacter.to_string(),
            KeyFault::BadChecksum.to_string(),
            SignatureFault::Malformed.to_string(),
            SignatureFault::SignedHeaders.to_string(),
            SignatureFault::DateMissing.to_string(),
            SignatureFault::DateMalformed.to_string(),
            SignatureFault::HashRepeated.to_string(),
            SignatureFault::BodyChanged.to_string(),
            SignatureFault::Unsigned.to_string(),
        ];
        for words in said {
            assert!(in_chinese(&words).is_some(), "{words}");
        }
    }

    /// Of the reasons in the parser's own source: a new one is told in Chinese, too.
    #[test]
    fn every_reason_of_a_malformed_head_is_known() {
        let source = include_str!("../../protocol/head/fault.rs");
        let (_, reasons) = source.split_once("impl Malformed").unwrap();
        let quoted = reasons.split('"').skip(1).step_by(2);
        let mut count = 0;
        for reason in quoted {
            assert!(in_chinese(reason).is_some(), "{reason}");
            count += 1;
        }
        assert!(count >= 31, "{count}");
    }
}
