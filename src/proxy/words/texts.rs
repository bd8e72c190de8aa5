//! The table.

use super::Text;

/// Declares texts, and a list of all for the tests.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident: $english:literal, $chinese:literal;)*) => {
        $($(#[$doc])* pub(in crate::proxy) static $name: Text = Text { english: $english, chinese: $chinese };)*

        #[cfg(test)]
        pub(super) static ALL: &[(&str, &Text)] = &[$((stringify!($name), &$name)),*];
    };
}

// What a code says by itself, before or in place of more exact words.
texts! {
    INVALID_REQUEST: "the request is malformed; see the reason", "请求无效";
    HEAD_TOO_LARGE: "the request head is too large; send fewer headers", "请求头过大，请减少请求头";
    UPGRADE_UNSUPPORTED: "no protocol upgrade is offered; send the request without", "不支持协议升级，请去除 Upgrade 后重试";
    EXPECTATION_UNKNOWN: "the expectation cannot be met; send no expect header", "不支持该 Expect 请求头，请去除后重试";
    ENCODING_UNSUPPORTED: "the body's encoding is not supported; send it uncompressed", "不支持该请求体编码，请发送未压缩的请求体";
    REQUEST_TIMEOUT: "the request did not arrive in time; send it without pauses", "请求接收超时，请连续发送请求体";
    MISSING_API_KEY: "no credential was sent; send one", "请求未携带凭证";
    INVALID_API_KEY: "the API key is not valid; copy it again or create a new one", "API Key 无效，请检查后重试";
    API_KEY_DISABLED: "the API key is disabled; enable it, or use another one", "API Key 已停用，请启用该 API Key 或更换其他 API Key";
    API_KEY_EXPIRED: "the API key has expired; create a new one", "API Key 已过期，请创建新的 API Key";
    INVALID_SIGNATURE: "the signature is not valid; sign again", "签名无效，请重新签名";
    SIGNATURE_EXPIRED: "the signature has expired; sign again, with the right time", "签名已过期，请校准时间后重新签名";
    SIGNATURE_REPLAYED: "the signature was used before, and is accepted once; sign the request again for each call", "签名已被使用，每个签名仅可使用一次，请为每次调用重新签名";
    INVALID_APP_CODE: "the AppCode is not valid; copy it again", "AppCode 无效，请检查后重试";
    SCHEME_NOT_ACCEPTED: "the product does not accept this kind of credential; send another", "该产品不支持此认证方式，请更换认证方式";
    TLS_REQUIRED: "TLS is needed; call over https", "请使用 HTTPS 调用";
    AMBIGUOUS_CREDENTIALS: "the request holds more than one credential; send one", "请求中的凭证不唯一，请仅携带一个凭证";
    ADDRESS_NOT_ALLOWED: "the caller's address is not allowed; call from another", "当前访问来源 IP 地址不在白名单内";
    PRODUCT_NOT_ALLOWED: "the product is not allowed; use another credential", "当前凭证无权调用该产品";
    MODEL_NOT_ALLOWED: "the model is not allowed; use another credential", "当前凭证无权使用该模型";
    MODEL_NOT_FOUND: "there is no such model; use one that is sold", "模型不存在，请使用在售的模型";
    PATH_NOT_FOUND: "nothing is sold at this path; use a published one", "请求路径不存在，请使用已发布的路径";
    RECEIPT_NOT_FOUND: "there is no such receipt; ask with the credential of the call", "回执不存在，请使用发起调用的凭证查询";
    REQUEST_TOO_LARGE: "the request is too large; send less", "请求体过大，请减小请求体";
    RATE_LIMIT_EXCEEDED: "too many calls; wait as told", "调用过于频繁，请按提示稍后重试";
    TOO_MANY_FAILURES: "too many authentications have failed; check the credential, wait as told", "认证失败次数过多，请检查凭证并按提示稍后重试";
    BUDGET_EXHAUSTED: "the budget of the API key is used up; use another key, or ask for a larger budget", "该 API Key 的预算已用完，请更换 Key 或提高预算";
    NO_PACKAGE: "the account has no package; buy one", "账户未购买资源包，请先购买";
    PACKAGE_EXHAUSTED: "the package is used up; buy another one", "资源包已用完，请购买新的资源包";
    PACKAGE_EXPIRED: "the package has expired; buy another one", "资源包已过期，请购买新的资源包";
    PACKAGE_NOT_YET_VALID: "the package cannot be used yet; wait for its first day", "资源包尚未生效，请在生效后使用";
    METERING_UNAVAILABLE: "calls cannot be counted at the moment; try again shortly", "暂时无法计量，请稍后重试";
    STORE_UNAVAILABLE: "accounts are not available at the moment; try again shortly", "账户服务暂时不可用，请稍后重试";
    REPLAY_UNAVAILABLE: "it cannot be told at the moment whether the signature was used before; sign the request again shortly", "暂时无法确认签名是否已被使用，请稍后重新签名";
    OVERLOADED: "the gateway is overloaded; try again shortly", "网关繁忙，请稍后重试";
    RECEIPT_UNAVAILABLE: "the receipt is not available at the moment; try again shortly", "暂时无法获取回执，请稍后重试";
    UPSTREAM_CONNECT: "the seller cannot be reached; try again later", "无法连接服务提供方，请稍后重试";
    UPSTREAM_BROKE: "the seller gave no valid answer; try again later", "服务提供方未返回有效响应，请稍后重试";
    SELLER_AUTH: "the seller refuses this gateway; the operator must mend it", "服务提供方拒绝了网关的凭证，请联系运营方处理";
    UPSTREAM_TIMEOUT: "the seller did not answer in time; try again later", "服务提供方响应超时，请稍后重试";

    // Credentials.
    TOO_MANY_SIGNATURES: "too many signatures were used lately to remember another one; sign the request again shortly", "近期使用的签名过多，请稍后重新签名";
    NO_KEY_SENT: "no API key was sent; {next}", "请求未携带 API Key，{next}";
    NO_CREDENTIAL_SENT: "no credential was sent; {next}", "请求未携带凭证，{next}";
    SCHEME_REFUSED: "{product} does not accept {sent}; {next}", "产品 {product} 不支持 {sent}认证，{next}";
    A_SIGNATURE: "a signature", "签名方式的";
    AN_APP_CODE: "an AppCode", "AppCode 方式的";
    AN_API_KEY: "an API key", "API Key 方式的";
    SEND_SIGNATURE: "sign the request with an app's AppKey and secret (SDK-HMAC-SHA256)", "请使用应用的 AppKey 和 AppSecret 对请求签名（SDK-HMAC-SHA256）";
    SEND_APP_CODE: "set the header X-Apig-AppCode", "请设置请求头 X-Apig-AppCode";
    SEND_API_KEY: "set the header Authorization: Bearer, a space and the key", "请设置请求头 Authorization，值为 Bearer、空格和 API Key";
    OR: ", or ", "，或";
    NO_KEY_OF_OURS: "this is not an API key of this service: {fault}", "该 API Key 不是本服务的 API Key：{fault}";
    KEY_UNKNOWN: "the API key is not known; check that it was copied whole and was not revoked, or create a new one", "API Key 不存在，请检查是否完整复制、是否已被吊销，或创建新的 API Key";
    KEY_REPLACED: "the API key was replaced by a newer one; use that one", "API Key 已轮换，请使用新的 API Key";
    KEY_PRODUCT: "this API key is not allowed to call {product}; use one that is", "当前 API Key 无权调用产品 {product}，请使用已授权的 API Key";
    KEY_MODEL: "this API key is not allowed to use the model {model}; use one that is", "当前 API Key 无权使用模型 {model}，请使用已授权的 API Key";
    KEY_MODEL_UNREAD: "this API key is limited to some models, and the request's model cannot be read; use another key", "当前 API Key 限定了可用模型，但无法从请求中读取模型，请更换其他 API Key";
    KEY_ADDRESS: "this API key is not accepted from {address}; call from an address that it allows, or allow this one", "当前 API Key 不允许从 {address} 访问，请从白名单内的地址访问，或将该地址加入白名单";
    APP_ADDRESS: "this app is not accepted from {address}; call from an address that it allows, or allow this one", "当前应用不允许从 {address} 访问，请从白名单内的地址访问，或将该地址加入白名单";
    APP_CODE_IN_THE_CLEAR: "AppCodes are accepted over TLS only, and this connection has none; whoever listened has this AppCode now: replace it", "AppCode 仅支持通过 TLS 连接使用，当前连接未使用 TLS，该 AppCode 可能已泄露，请立即更换";
    TWO_CREDENTIALS: "the request holds two credentials that are not one caller's; send one", "请求中的两个凭证不属于同一调用方，请仅携带一个凭证";
    REPEATED: "{what} is repeated; send exactly one", "{what} 重复，请仅发送一个";
    SCHEME_UNKNOWN: "the authorization scheme {scheme} is not served; send Bearer, a space and the key", "不支持 Authorization 认证方式 {scheme}，请使用 Bearer、空格和 API Key";
    APP_AUTH: "Incorrect app authentication information: {fault}", "应用认证信息错误：{fault}";
    SIGNATURE_OLD: "signature expired, signature time:{signed},server time:{now}; sign again, with the right time", "签名已过期，签名时间：{signed}，服务器时间：{now}，请校准时间后重新签名";
    SIGNED_HEADER_MISSING: "the signed header {header} is missing from the request", "请求中缺少已签名的请求头 {header}";
    CONNECTION_NAMES_SIGNED: "the connection header names a signed header, which would not reach the seller; take it out", "Connection 请求头列出了已签名的请求头，该请求头将无法到达服务提供方，请将其移除";
    WRONG_SIGNATURE: "verify signature fail{signed}; check AppKey and AppSecret, that the app is bound to this product, and that nothing changes the request after it is signed; `tollgate verify` finds the difference", "签名校验失败{signed}，请检查 AppKey 和 AppSecret 是否正确、应用是否已绑定该产品，以及请求签名后是否被修改，可使用 `tollgate verify` 查找差异";
    CANONICAL: ", canonicalRequest:{signed}", "，canonicalRequest：{signed}";
    SIGNATURE_TOO_OLD_TO_TELL: "the signature was made before the gateway's memory of used signatures begins, so it cannot be told whether it was used; sign the request again", "签名时间早于网关的签名使用记录，无法确认是否已被使用，请重新签名";
    APP_CODE_OPENS_NOTHING: "the AppCode opens nothing here; check that it was copied whole and that its app is bound to this product", "AppCode 不可用，请检查是否完整复制，以及应用是否已绑定该产品";

    // Quota.
    NO_PACKAGE_OF: "the account has no package of {product}; {next}", "账户未购买产品 {product} 的资源包，{next}";
    USED_UP: "0 calls of {product} are left: the package is used up; {next}", "产品 {product} 剩余调用次数为 0，资源包已用完，{next}";
    SET_ASIDE: "no call of {product} is free: all that is left is set aside for calls under way; try again when they have ended, or {next}", "产品 {product} 暂无可用调用次数：剩余次数均已预留给正在进行的调用，请在其结束后重试，或{next}";
    OVER: "0 calls of {product} are left: the package expired at {at}; {next}", "产品 {product} 剩余调用次数为 0，资源包已于 {at} 过期，{next}";
    NOT_BEGUN: "the package of {product} can be used from {from} on; {next}", "产品 {product} 的资源包自 {from} 起生效，{next}";
    BUY_AT: "buy more at {url}", "请前往 {url} 购买";
    ASK_THE_OPERATOR: "ask the operator for a new one", "请联系运营方购买";
    NONE_COUNTED: "calls cannot be counted at the moment, so none are served; try again shortly", "暂时无法计量，已停止提供调用，请稍后重试";
    ANSWER_WITHHELD: "the call could not be counted, so its answer was withheld; it was not charged", "本次调用无法计量，响应已被拦截，未扣费";
    ACCOUNTS_UNREAD: "the store of accounts cannot be used at the moment; try again shortly", "账户存储暂时不可用，请稍后重试";

    // Limits and budgets.
    LIMITED: "{whose} {what}, and these are used up; {next}, or ask the operator for more", "{whose}{what}，现已用完，{next}，或联系运营方提高限额";
    PRODUCT_SERVES: "{product} serves all its callers", "产品 {product} 对全部调用方的限额为";
    ACCOUNT_MAY: "the account may make", "该账户的限额为";
    KEY_MAY: "the API key may make", "该 API Key 的限额为";
    APP_MAY: "the app may make", "该应用的限额为";
    CALLS_A_SECOND: "{limit} calls a second", "每秒 {limit} 次调用";
    CALLS_A_MINUTE: "{limit} calls a minute", "每分钟 {limit} 次调用";
    CALLS_A_DAY: "{limit} calls a day", "每天 {limit} 次调用";
    CALLS_AT_ONE_TIME: "{limit} calls at one time", "同时 {limit} 次调用";
    TRY_AGAIN_IN: "try again in {wait} s", "请在 {wait} 秒后重试";
    WHEN_ONE_HAS_ENDED: "try again when one of them has ended", "请在其中一次调用结束后重试";
    UNITS_USED_UP: "the API key's budget of {units} units {how} is used up; {renewed}ask the account's owner for a larger one, or use another key", "该 API Key {how} {units} 个计量单位的预算已用完，{renewed}请联系账户所有者提高预算，或更换其他 API Key";
    MONEY_USED_UP: "the API key's budget of {money} {how} does not cover this call: {left} is left; {renewed}ask the account's owner for a larger one, or use another key", "该 API Key {how} {money} 的预算不足以支付本次调用，剩余 {left}，{renewed}请联系账户所有者提高预算，或更换其他 API Key";
    A_DAY: "a day", "每天";
    A_MONTH: "a month", "每月";
    IN_ALL: "in all", "总计";
    BEGINS_ANEW: "it begins anew at {at}; ", "将于 {at} 重新计算，";
    BUDGETS_SHARE_USED: "this gateway's share of what is left of the API key's budget is used until the other gateways have heard of it; try again in a second", "本网关可用的 API Key 剩余预算份额已用完，正在与其他网关同步，请在 1 秒后重试";
    TOO_MANY_FROM_ADDRESS: "too many authentications from this address have failed; check the credential, {next}", "来自该地址的认证失败次数过多，请检查凭证，{next}";
    TOO_MANY_WITH_CREDENTIAL: "too many authentications with this credential have failed; check the credential, {next}", "使用该凭证的认证失败次数过多，请检查凭证，{next}";

    // What is sold where.
    PRODUCTS_PATHS: "this product's paths begin with {right}", "该产品的路径以 {right} 开头";
    NOTHING_HERE: "nothing is sold at this path; {paths}", "该路径下没有在售的产品，{paths}";
    OWN_PATHS: "GET {own}receipts/REQUEST_ID and GET {own}receipt-keys are answered here", "此处仅支持 GET {own}receipts/REQUEST_ID 和 GET {own}receipt-keys";
    MODEL_NOT_SOLD: "the model {model} is not sold here; sold are {known}; {paths}", "模型 {model} 未在此销售，在售模型：{known}，{paths}";
    NO_MODEL_NAMED: "the request names no model, so the product cannot be told; {paths}", "请求未指定模型，无法确定产品，{paths}";
    PRODUCT_WITHOUT_MODEL: "{product} has no model {model}; it has {known}", "产品 {product} 没有模型 {model}，可用模型：{known}";
    PRODUCT_MODEL_UNREAD: "{product} sells {known} only, and which one this body asks for cannot be read; send one JSON object in UTF-8 as application/json", "产品 {product} 仅提供以下模型：{known}，无法从请求体中读取模型，请以 application/json 发送一个 UTF-8 编码的 JSON 对象";
    NO_MODEL_FOR_KEY: "there is no model {model} for this key; there are {known}", "当前凭证没有模型 {model}，可用模型：{known}";
    NO_PRODUCT: "there is no product {deployment}; {paths}", "产品 {deployment} 不存在，{paths}";
    PUBLISHED_AT: "products are published at {paths}", "已发布的产品路径：{paths}";
    NONE_BY_NAME: "none by name", "无指定名称";
    AND_MORE: "{shown} and {rest} more", "{shown} 等（另有 {rest} 个）";
    NO_RECEIPTS: "this gateway makes no receipts; ask its operator for them", "本网关不提供回执，请联系运营方";
    NO_RECEIPT: "there is no receipt of a call {request_id}: within the last 7 days this gateway has counted none that was made with this credential; ask with the key or the app that made it, and, where there are several gateways, the one that served it", "调用 {request_id} 的回执不存在：本网关在最近 7 天内没有由该凭证发起且已计量的此调用，请使用发起该调用的 API Key 或应用查询；如有多个网关，请向处理该调用的网关查询";
    RECEIPT_LATER: "the call has not ended, so its receipt is not made yet; ask again when it has", "调用尚未结束，回执尚未生成，请在调用结束后查询";
    RECEIPTS_UNREAD: "receipts cannot be looked up at the moment; try again shortly", "暂时无法查询回执，请稍后重试";

    // Bodies.
    BODY_LARGER: "the body is larger than {max} bytes", "请求体超过 {max} 字节";
    BODY_STOPPED: "the body stopped arriving, or came too slowly; send it without pauses", "请求体传输中断或过慢，请连续发送请求体";
    BODY_BROKEN: "the body is cut short or malformed", "请求体不完整或格式错误";
    BODY_COMPRESSED: "the body is compressed, so its model cannot be read; send it uncompressed", "请求体已压缩，无法读取模型，请发送未压缩的请求体";
    BODY_OTHER_CHARSET: "the content type names a charset that is not UTF-8, so the model cannot be read; send JSON in UTF-8", "Content-Type 指定的字符集不是 UTF-8，无法读取模型，请使用 UTF-8 编码发送 JSON";
    NOT_JSON: "the body is not valid JSON at line {line}, column {column}; send one JSON object", "请求体不是有效的 JSON（第 {line} 行，第 {column} 列），请发送一个 JSON 对象";
    NOT_UTF8: "the body is not plain UTF-8 at byte {offset}; send JSON in UTF-8 without a byte order mark", "请求体在第 {offset} 字节处不是有效的 UTF-8，请使用不带 BOM 的 UTF-8 编码发送 JSON";
    FIELD_AMBIGUOUS: "the field `{field}` is repeated or written in another case; send it once, in lower case", "字段 `{field}` 重复或大小写不正确，请仅以小写形式发送一次";
    MODEL_ESCAPE: "the field `model` at byte {offset} holds an escape that is no character; send the model's name", "字段 `model`（第 {offset} 字节）包含无效的转义字符，请发送模型名称";
    TOO_MANY_LARGE: "too many large requests at this moment; try again shortly", "当前大请求过多，请稍后重试";
    PATH_CHARACTERS: "the path holds characters that no path has", "请求路径包含非法字符";
    FORWARDED_MALFORMED: "the header {name} is malformed, so that the client's address cannot be told; the proxy before this gateway must write a list of addresses", "请求头 {name} 格式错误，无法确定客户端地址，网关前的代理必须写入地址列表";
    ENDED_MEANWHILE: "the call was ended meanwhile; try again", "调用已终止，请重试";

    // Sellers.
    SELLER_AWAY: "the seller's server cannot be reached; the call was not charged, try again later", "无法连接服务提供方的服务器，本次调用未扣费，请稍后重试";
    SELLER_BROKE_OFF: "the seller's server broke off before it answered; the call was not charged, try again later", "服务提供方的服务器在响应前断开连接，本次调用未扣费，请稍后重试";
    SELLER_LATE: "the seller's server did not answer in time; the call was not charged, try again later", "服务提供方的服务器响应超时，本次调用未扣费，请稍后重试";
    SELLER_TWO_LENGTHS: "the seller's answer has two lengths, so its end is not certain; the call was not charged", "服务提供方的响应包含两个长度，无法确定其结尾，本次调用未扣费";
    SELLER_LENGTH_LISTED: "the seller's answer names its length more than once, or not as a number, so its end is not certain; the call was not charged", "服务提供方的响应多次给出长度或长度不是数字，无法确定其结尾，本次调用未扣费";
    SELLER_CODING: "the seller's answer is in a transfer coding other than chunked, which the gateway did not ask for; the call was not charged", "服务提供方的响应使用了网关未请求的传输编码，本次调用未扣费";
    SELLER_SWITCHED: "the seller's server switched protocols, which was not asked for; the call was not charged", "服务提供方的服务器未经请求切换了协议，本次调用未扣费";
    SELLER_REFUSES_US: "the seller does not accept this gateway's credential; the operator must mend it, the call was not charged", "服务提供方不接受网关的凭证，需由运营方处理，本次调用未扣费";
}
