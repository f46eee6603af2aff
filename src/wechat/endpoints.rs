//! WeChat's server APIs: where they are, and what has to be known to call one for somebody else.
//!
//! The table has the 428 APIs that are documented for Mini Programs (developers.weixin.qq.com, 服务端), and four that are
//! only told of in the guides: `img_sec_check`, `custom/typing`, `set_user_storage` and `remove_user_storage`. It is compiled
//! in and sorted by path: looking up is a binary search. WeChat has more than these, so a path that is not in it is no
//! error; it shows an access_token, as all but four do, and its name does not become a label of a metric.
//!
//! Whether an API only [reads](Endpoint::is_read) decides whether a call may be repeated that WeChat may have acted on.
//! Neither the method nor the name says so: `GET /wxa/resetusersessionkey` changes a key, and most queries are a POST. So
//! it was decided row by row, from names and titles, by this rule: it reads if asking twice leaves WeChat as asking once
//! does, and both times gives what there is. An API does not read if it
//! - changes, sends, submits or starts something, or may (`plugin` and `servicemarket` do what their `action` says);
//! - takes a code, ticket or token that is used up by it (`jscode2session`, `getuserphonenumber`, `getpluginopenpid`);
//! - makes something of which there is a limited number (`getwxacode`: 100,000 for ever; links, schemes, upload links), or
//!   hands out credentials or ids that may differ each time (`getqcloudtoken`, `getvoipsign`, `getverifyid`, `getpushurl`);
//! - costs money or a paid quota each time (`/cv/`);
//! - has a name that says one thing and a title that says another (`preaddorder`).
//!
//! A check of content that keeps nothing (`msg_sec_check`) reads, and so do codes without limit (`getwxacodeunlimit`) and
//! downloads. Where it was in doubt, it acts.

/// An API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its path, without a query. Letter case counts.
    pub path: &'static str,
    /// How it is asked.
    pub method: Method,
    /// Whether an access_token is shown. Those that show none show the AppSecret.
    pub token: bool,
    /// The signatures in the query.
    pub signed: Signed,
    /// Whether it only reads, so that to ask once more is harmless.
    pub is_read: bool,
}

/// How an API is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// POST.
    Post,
    /// The reference says GET, the guide and the SDKs POST with nothing in the body.
    GetOrPost,
}

/// Which signatures an API wants in its query, beside the access_token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// None.
    None,
    /// `signature`, made with the user's session_key over the body.
    Session,
    /// `signature`, made with the user's session_key over nothing, whatever the body has.
    SessionAlone,
    /// `pay_sig`, made with the key of virtual payment over path and body.
    Pay,
    /// Both, because it acts on a user's balance.
    PayAndSession,
}

/// The label of all that is not in the table.
pub const OTHER: &str = "other";

/// The API at `path`, if the table has it.
pub fn find(path: &str) -> Option<&'static Endpoint> {
    TABLE
        .binary_search_by_key(&path, |row| row.path)
        .ok()
        .map(|index| &TABLE[index])
}

/// All of the table.
#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = &'static Endpoint> {
    TABLE.iter()
}

/// `path` as a label of a metric, of which there must not be any number: itself if the table has it, else [`OTHER`].
pub fn label(path: &str) -> &'static str {
    find(path).map_or(OTHER, |endpoint| endpoint.path)
}

/// Whether an access_token is shown at `path`.
pub fn shows_token(path: &str) -> bool {
    find(path).is_none_or(|endpoint| endpoint.token)
}

/// Which signatures are wanted at `path`. All of virtual payment is signed, also what is added to it tomorrow.
pub fn signed(path: &str) -> Signed {
    match find(path) {
        Some(endpoint) => endpoint.signed,
        None if path.starts_with("/xpay/") => Signed::Pay,
        None => Signed::None,
    }
}

/// Whether a call at `path` is known only to read.
pub fn is_read(path: &str) -> bool {
    find(path).is_some_and(|endpoint| endpoint.is_read)
}

use Method::{Get, GetOrPost, Post};

const TOKEN: bool = true;
const NO_TOKEN: bool = false;
const READS: bool = true;
const ACTS: bool = false;

const fn row(
    path: &'static str,
    method: Method,
    token: bool,
    signed: Signed,
    is_read: bool,
) -> Endpoint {
    Endpoint {
        path,
        method,
        token,
        signed,
        is_read,
    }
}

/// Sorted by path, because [`find`] searches it by halving.
#[rustfmt::skip]
static TABLE: [Endpoint; 432] = [
    row("/cgi-bin/business/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/business/list", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/business/register", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/business/update", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/callback/check", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/clear_quota", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/clear_quota/v2", Post, NO_TOKEN, Signed::None, ACTS),
    row("/cgi-bin/customservice/getkflist", Get, TOKEN, Signed::None, READS),
    row("/cgi-bin/customservice/getonlinekflist", Get, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/business/account/bind", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/business/account/getall", Get, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/business/delivery/getall", Get, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/business/order/add", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/business/order/cancel", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/business/order/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/business/path/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/business/printer/getall", Get, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/business/printer/update", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/business/quota/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/business/test_update_order", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/contact/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/delivery/no_worry_return/add", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/no_worry_return/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/delivery/no_worry_return/unbind", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/open_msg/follow_waybill", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/open_msg/get_delivery_list", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/delivery/open_msg/query_follow_trace", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/delivery/open_msg/query_trace", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/delivery/open_msg/trace_waybill", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/open_msg/update_follow_waybill_goods", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/open_msg/update_waybill_goods", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/path/update", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/pathnotify", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/scatter/update_complaint_result", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/service/business/update", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/single_waybill/cancel_order", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/single_waybill/fee", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/single_waybill/get_bill", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/delivery/single_waybill/refund_order", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/single_waybill/update", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/template/preview", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/delivery/userquery", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/intracity/addorder", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/intracity/apply", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/intracity/balancequery", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/intracity/cancelorder", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/intracity/createstore", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/intracity/getcity", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/intracity/getpaymode", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/intracity/mocknotify", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/intracity/preaddorder", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/intracity/queryflow", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/intracity/queryorder", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/intracity/querystore", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/intracity/setpaymode", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/intracity/storecharge", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/intracity/storerefund", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/intracity/updatestore", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/delivery/getall", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/local/business/open", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/order/add", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/order/addtips", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/order/cancel", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/order/confirm_return", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/order/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/local/business/order/pre_add", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/order/precancel", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/order/readd", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/realmock_update_order", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/shop/add", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/business/shop/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/express/local/business/test_update_order", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/express/local/delivery/update_order", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/get_api_domain_ip", Get, TOKEN, Signed::None, READS),
    row("/cgi-bin/getcallbackip", Get, TOKEN, Signed::None, READS),
    row("/cgi-bin/media/get", Get, TOKEN, Signed::None, READS),
    row("/cgi-bin/media/getfeedbackmedia", Get, TOKEN, Signed::None, READS),
    row("/cgi-bin/media/upload", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/message/custom/business/typing", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/message/custom/send", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/message/custom/typing", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/message/device/subscribe/send", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/message/subscribe/send", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/message/wxopen/chattoolmsg/send", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/message/wxopen/updatablemsg/send", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/openapi/quota/clear", Post, TOKEN, Signed::None, ACTS),
    row("/cgi-bin/openapi/quota/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/openapi/rid/get", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/soter/verify_signature", Post, TOKEN, Signed::None, READS),
    row("/cgi-bin/stable_token", Post, NO_TOKEN, Signed::None, ACTS),
    row("/cgi-bin/token", Get, NO_TOKEN, Signed::None, ACTS),
    row("/cgi-bin/wxaapp/createwxaqrcode", Post, TOKEN, Signed::None, ACTS),
    row("/cityservice/face/identify/getverifyid", Post, TOKEN, Signed::None, ACTS),
    row("/cityservice/face/identify/queryverifyinfo", Post, TOKEN, Signed::None, READS),
    row("/cityservice/getmedrealname", Post, TOKEN, Signed::None, ACTS),
    row("/cityservice/getmsgrelation", Post, TOKEN, Signed::None, READS),
    row("/cityservice/getservicepath", Post, TOKEN, Signed::None, ACTS),
    row("/cityservice/sendchannelmsg", Post, TOKEN, Signed::None, ACTS),
    row("/cityservice/sendmsgdata", Post, TOKEN, Signed::None, ACTS),
    row("/customservice/kfaccount/add", Post, TOKEN, Signed::None, ACTS),
    row("/customservice/kfaccount/canceladmin", Get, TOKEN, Signed::None, ACTS),
    row("/customservice/kfaccount/del", Post, TOKEN, Signed::None, ACTS),
    row("/customservice/kfaccount/setadmin", Get, TOKEN, Signed::None, ACTS),
    row("/customservice/work/bind", Post, TOKEN, Signed::None, ACTS),
    row("/customservice/work/get", Get, TOKEN, Signed::None, READS),
    row("/customservice/work/unbind", Post, TOKEN, Signed::None, ACTS),
    row("/cv/img/aicrop", Post, TOKEN, Signed::None, ACTS),
    row("/cv/img/qrcode", Post, TOKEN, Signed::None, ACTS),
    row("/cv/img/superresolution", Post, TOKEN, Signed::None, ACTS),
    row("/cv/ocr/bankcard", Post, TOKEN, Signed::None, ACTS),
    row("/cv/ocr/bizlicense", Post, TOKEN, Signed::None, ACTS),
    row("/cv/ocr/comm", Post, TOKEN, Signed::None, ACTS),
    row("/cv/ocr/driving", Post, TOKEN, Signed::None, ACTS),
    row("/cv/ocr/drivinglicense", Post, TOKEN, Signed::None, ACTS),
    row("/cv/ocr/idcard", Post, TOKEN, Signed::None, ACTS),
    row("/datacube/getweanalysisappiddailyretaininfo", Post, TOKEN, Signed::None, READS),
    row("/datacube/getweanalysisappiddailysummarytrend", Post, TOKEN, Signed::None, READS),
    row("/datacube/getweanalysisappiddailyvisittrend", Post, TOKEN, Signed::None, READS),
    row("/datacube/getweanalysisappidmonthlyretaininfo", Post, TOKEN, Signed::None, READS),
    row("/datacube/getweanalysisappidmonthlyvisittrend", Post, TOKEN, Signed::None, READS),
    row("/datacube/getweanalysisappiduserportrait", Post, TOKEN, Signed::None, READS),
    row("/datacube/getweanalysisappidvisitdistribution", Post, TOKEN, Signed::None, READS),
    row("/datacube/getweanalysisappidvisitpage", Post, TOKEN, Signed::None, READS),
    row("/datacube/getweanalysisappidweeklyretaininfo", Post, TOKEN, Signed::None, READS),
    row("/datacube/getweanalysisappidweeklyvisittrend", Post, TOKEN, Signed::None, READS),
    row("/intp/eldermedical/gethospnoticelist", Post, TOKEN, Signed::None, READS),
    row("/intp/eldermedical/previewhopsnotice", Post, TOKEN, Signed::None, ACTS),
    row("/intp/eldermedical/publichopsnotice", Post, TOKEN, Signed::None, ACTS),
    row("/intp/eldermedical/sethopsnotice", Post, TOKEN, Signed::None, ACTS),
    row("/intp/quickcheckstudentidentity", Post, TOKEN, Signed::None, ACTS),
    row("/intp/realname/checkrealnameinfo", Post, TOKEN, Signed::None, ACTS),
    row("/intp/transportcode/getbusinessview", Post, TOKEN, Signed::None, ACTS),
    row("/redpacketcover/wxapp/cover_url/get_by_token", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/addprofitsharingaccount", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/closeb2border", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/createprofitsharingorder", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/createwqflink", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/delprofitsharingaccount", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/downloadbill", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/finishprofitsharingorder", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/getappkey", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/getmchbalance", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/getmchinfo", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/getorder", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/getrefund", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/getwqfchargefee", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/queryprofitsharingaccount", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/queryprofitsharingorder", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/queryprofitsharingremainamt", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/queryrefundprofitsharingorder", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/querywithdraw", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/refund", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/refundprofitsharing", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/registeronlywqf", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/retailgetmchorder", Post, TOKEN, Signed::None, READS),
    row("/retail/B2b/retailregistermch", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/retailuploadmchfile", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/setautowithdraw", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/setmchprofitrate", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/updatewqfchargefee", Post, TOKEN, Signed::None, ACTS),
    row("/retail/B2b/withdraw", Post, TOKEN, Signed::None, ACTS),
    row("/sns/jscode2session", Get, NO_TOKEN, Signed::None, ACTS),
    row("/tcb/adddelayedfunctiontask", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/batchdeletefile", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/batchdownloadfile", Post, TOKEN, Signed::None, READS),
    row("/tcb/cloudbasereport", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/createsendsmstask", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/databaseadd", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/databaseaggregate", Post, TOKEN, Signed::None, READS),
    row("/tcb/databasecollectionadd", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/databasecollectiondelete", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/databasecollectionget", Post, TOKEN, Signed::None, READS),
    row("/tcb/databasecount", Post, TOKEN, Signed::None, READS),
    row("/tcb/databasedelete", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/databasemigrateexport", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/databasemigrateimport", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/databasemigratequeryinfo", Post, TOKEN, Signed::None, READS),
    row("/tcb/databasequery", Post, TOKEN, Signed::None, READS),
    row("/tcb/databaseupdate", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/describeextensionuploadinfo", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/describesmsrecords", Post, TOKEN, Signed::None, READS),
    row("/tcb/getqcloudtoken", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/getstatistics", Post, TOKEN, Signed::None, READS),
    row("/tcb/sendsms", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/sendsmsv2", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/updateindex", Post, TOKEN, Signed::None, ACTS),
    row("/tcb/uploadfile", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/addnearbypoi", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/addbookauth", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/addbookauthbyappid", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/auditbook", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/batchcreatechapter", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/createbook", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/createchapter", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/delbookauth", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/delbookauthbyappid", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/deletebook", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/deletechapter", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/getbook", Post, TOKEN, Signed::None, READS),
    row("/wxa/book/getchapter", Post, TOKEN, Signed::None, READS),
    row("/wxa/book/listbook", Post, TOKEN, Signed::None, READS),
    row("/wxa/book/listchapter", Post, TOKEN, Signed::None, READS),
    row("/wxa/book/querybookauth", Post, TOKEN, Signed::None, READS),
    row("/wxa/book/querybookauthv2", Post, TOKEN, Signed::None, READS),
    row("/wxa/book/reorderchapter", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/replacechapter", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/updatebook", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/book/updatechapterseq", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/batchcreateretail", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/checkencryptedmsg", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/get_wxa_followers", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/getgoodswarehouse", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/getliveinfo", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/getretailinfo", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/getretailmessagelist", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/getretailopenidlist", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/getuserencryptkey", GetOrPost, TOKEN, Signed::SessionAlone, READS),
    row("/wxa/business/getuserphonenumber", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/group/adddevice", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/group/createid", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/group/getinfo", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/group/removedevice", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/insurance_freight/applypay", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/insurance_freight/claim", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/insurance_freight/createchargeid", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/insurance_freight/createorder", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/insurance_freight/getorderlist", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/insurance_freight/getpayorderlist", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/insurance_freight/getsummary", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/insurance_freight/open", Get, TOKEN, Signed::None, ACTS),
    row("/wxa/business/insurance_freight/query_open", Get, TOKEN, Signed::None, READS),
    row("/wxa/business/insurance_freight/refund", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/insurance_freight/update_notify_funds", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/license/activedevice", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/license/getdeviceinfo", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/license/getpkglist", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/novelreader/getpreviewsetting", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/novelreader/setpreviewsetting", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/novelreader/setrecmdnovel", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/performance/boot", Post, TOKEN, Signed::None, READS),
    row("/wxa/business/push_message", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/retailbusinessapply", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/retailnotifybusiness", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/business/unbinduserb2cauthinfo", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/charge/usage/get", Get, TOKEN, Signed::None, READS),
    row("/wxa/charge/usage/get_recent_average", Get, TOKEN, Signed::None, READS),
    row("/wxa/checksession", Get, TOKEN, Signed::SessionAlone, READS),
    row("/wxa/delnearbypoi", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/devplugin", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/generate_urllink", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/generatenfcscheme", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/generatescheme", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/genwxashortlink", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/get_user_notify", Post, TOKEN, Signed::None, READS),
    row("/wxa/getgrayreleaseplan", Get, TOKEN, Signed::None, READS),
    row("/wxa/getnearbypoilist", Post, TOKEN, Signed::None, READS),
    row("/wxa/getopendata", Post, TOKEN, Signed::None, READS),
    row("/wxa/getpaidunionid", Get, TOKEN, Signed::None, READS),
    row("/wxa/getpluginopenpid", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/getsnticket", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/getuserriskrank", Post, TOKEN, Signed::None, READS),
    row("/wxa/getvoipsign", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/getwxacode", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/getwxacodeunlimit", Post, TOKEN, Signed::None, READS),
    row("/wxa/getwxadevinfo", Post, TOKEN, Signed::None, READS),
    row("/wxa/img_sec_check", Post, TOKEN, Signed::None, READS),
    row("/wxa/media_check_async", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/msg_sec_check", Post, TOKEN, Signed::None, READS),
    row("/wxa/plugin", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/query_urllink", Post, TOKEN, Signed::None, READS),
    row("/wxa/queryscheme", Post, TOKEN, Signed::None, READS),
    row("/wxa/remove_user_storage", Post, TOKEN, Signed::Session, ACTS),
    row("/wxa/resetusersessionkey", Get, TOKEN, Signed::SessionAlone, ACTS),
    row("/wxa/search/wxaapi_submitpages", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/famousbrand/apply", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/famousbrand/get_status", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/order/get_order", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/order/get_order_list", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/order/is_trade_managed", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/order/is_trade_management_confirmation_completed", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/order/notify_confirm_receive", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/order/opspecialorder", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/order/set_msg_jump_path", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/order/setwxatradetypecgi", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/order/upload_combined_shipping_info", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/order/upload_shipping_info", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/applyupload", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/auditdrama", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/authorizeapp", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/authorizecopyright", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/authorizedrama", Get, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/commitupload", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/deauthorizeapp", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/deauthorizecopyright", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/deauthorizedrama", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/deletemedia", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/getauthorizeapps", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getauthorizedobjects", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getauthorizeobjects", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getcdnlogs", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getcdnusagedata", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getcopyrightauthorizationlist", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getcopyrightauthorizedlist", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getdrama", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getdramalatestauditinfo", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getmedia", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/getmedialink", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/gettask", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/listdramas", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/listmedia", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/listpackages", Post, TOKEN, Signed::None, READS),
    row("/wxa/sec/vod/modifydramabasicinfo", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/pullupload", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/replacedramamedia", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/singlefileupload", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/submitreplacedramamedias", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/sec/vod/uploadpart", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/servicemarket", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/servicemarketretrieve", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/set_user_notify", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/set_user_notifyext", Post, TOKEN, Signed::None, ACTS),
    row("/wxa/set_user_storage", Post, TOKEN, Signed::Session, ACTS),
    row("/wxa/setnearbypoishowstatus", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/add", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/audit", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/delete", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/deleteInRoom", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/getVideo", Post, TOKEN, Signed::None, READS),
    row("/wxaapi/broadcast/goods/getapproved", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/broadcast/goods/getkey", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/broadcast/goods/onsale", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/push", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/resetaudit", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/setkey", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/sort", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/goods/update", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/role/addrole", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/role/deleterole", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/role/getrolelist", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/broadcast/room/addassistant", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/addgoods", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/addsubanchor", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/create", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/deleteroom", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/deletesubanchor", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/editroom", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/getassistantlist", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/broadcast/room/getpushurl", Get, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/getsharedcode", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/broadcast/room/getsubanchor", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/broadcast/room/modifyassistant", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/modifysubanchor", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/removeassistant", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/updatecomment", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/updatefeedpublic", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/updatekf", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/broadcast/room/updatereplay", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/comment/apikfquota/reset", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/comment/commentinfo/get", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/comment/commentreply/add", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/comment/commentreply/delete", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/comment/confirmcompromise", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/comment/mpcommentlist/get", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/comment/reply/add", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/comment/reply/delete", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/comment/replyandcommentreplylist/get", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/feedback/list", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/log/get_client_version", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/log/get_performance", Post, TOKEN, Signed::None, READS),
    row("/wxaapi/log/get_scene", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/log/jserr_detail", Post, TOKEN, Signed::None, READS),
    row("/wxaapi/log/jserr_list", Post, TOKEN, Signed::None, READS),
    row("/wxaapi/minishop/busiAppeal", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/minishop/bussiRespondComplaint", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/minishop/bussiSupplyProof", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/minishop/bussiSupplyRefund", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/minishop/complaintOrderDetail", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/newtmpl/addtemplate", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/newtmpl/deltemplate", Post, TOKEN, Signed::None, ACTS),
    row("/wxaapi/newtmpl/getcategory", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/newtmpl/getpubtemplatekeywords", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/newtmpl/getpubtemplatetitles", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/newtmpl/gettemplate", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/userlog/userlog_search", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/wxamptrade/get_guarantee_status", Get, TOKEN, Signed::None, READS),
    row("/wxaapi/wxamptrade/get_penalty_list", Get, TOKEN, Signed::None, READS),
    row("/wxadrama/batchprocessdramapromotion", Post, TOKEN, Signed::None, ACTS),
    row("/wxadrama/developergetiaadrama", Post, TOKEN, Signed::None, READS),
    row("/wxadrama/developergetpublisheddrama", Post, TOKEN, Signed::None, READS),
    row("/wxadrama/developerpublishdrama", Post, TOKEN, Signed::None, ACTS),
    row("/wxadrama/developersetflushdrama", Post, TOKEN, Signed::None, ACTS),
    row("/wxadrama/developersetiaadrama", Post, TOKEN, Signed::None, ACTS),
    row("/wxadrama/developersetrecmddrama", Post, TOKEN, Signed::None, ACTS),
    row("/wxadrama/getfinderevent", Post, TOKEN, Signed::None, READS),
    row("/wxadrama/setplayerdramarecmdswitch", Post, TOKEN, Signed::None, ACTS),
    row("/xpay/bind_transfer_accout", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/cancel_currency_pay", Post, TOKEN, Signed::PayAndSession, ACTS),
    row("/xpay/cancel_subscribe_contract", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/complete_complaint", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/create_funds_bill", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/create_withdraw_order", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/currency_pay", Post, TOKEN, Signed::PayAndSession, ACTS),
    row("/xpay/download_adverfunds_order", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/download_bill", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/download_ios_settlement_bill", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/get_complaint_detail", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/get_complaint_list", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/get_negotiation_history", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/get_upload_file_sign", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/notify_provide_goods", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/present_currency", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/query_adver_funds", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_biz_balance", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_download_order", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_funds_bill", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_order", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_publish_goods", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_punishment_reasons", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_recover_bill", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_subscribe_contract", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_transfer_account", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_upload_goods", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/query_user_balance", Post, TOKEN, Signed::PayAndSession, READS),
    row("/xpay/query_withdraw_order", Post, TOKEN, Signed::Pay, READS),
    row("/xpay/refund_order", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/response_complaint", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/send_subscribe_pre_payment", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/start_download_order", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/start_publish_goods", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/start_upload_goods", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/submit_subscribe_pay_order", Post, TOKEN, Signed::Pay, ACTS),
    row("/xpay/upload_vp_file", Post, TOKEN, Signed::Pay, ACTS),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(such: impl Fn(&Endpoint) -> bool) -> Vec<&'static str> {
        let rows = TABLE.iter().filter(|row| such(row));
        rows.map(|row| row.path).collect()
    }

    #[test]
    fn the_table_is_sorted_and_has_no_path_twice() {
        assert!(TABLE.windows(2).all(|pair| pair[0].path < pair[1].path));
    }

    #[test]
    fn every_row_is_found_by_its_path_and_is_its_own_label() {
        for row in &TABLE {
            assert_eq!(find(row.path), Some(row));
            assert_eq!(label(row.path), row.path);
        }
    }

    #[test]
    fn a_path_is_one_as_requests_have_it() {
        for row in &TABLE {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '-');
            assert!(row.path.starts_with('/') && !row.path.ends_with('/'));
            assert!(row.path.chars().all(is_plain), "{}", row.path);
        }
    }

    #[test]
    fn what_is_not_in_the_table_has_one_label_and_shows_a_token_and_is_not_repeated() {
        for path in [
            "",
            "/",
            "/wxa/",
            "/WXA/checksession",
            "/wxa/checksession/",
            "/zzz",
            "/xpay/new",
        ] {
            assert_eq!(find(path), None, "{path}");
            assert_eq!(
                (label(path), shows_token(path), is_read(path)),
                ("other", true, false)
            );
        }
        assert_eq!(signed("/xpay/new"), Signed::Pay);
        assert_eq!(signed("/xpayment"), Signed::None);
    }

    #[test]
    fn four_apis_show_the_app_secret_instead_of_a_token() {
        let expected = [
            "/cgi-bin/clear_quota/v2",
            "/cgi-bin/stable_token",
            "/cgi-bin/token",
            "/sns/jscode2session",
        ];
        assert_eq!(paths(|row| !row.token), expected);
    }

    #[test]
    fn signatures_are_wanted_where_the_documentation_wants_them() {
        let session = ["/wxa/remove_user_storage", "/wxa/set_user_storage"];
        assert_eq!(paths(|row| row.signed == Signed::Session), session);
        let alone = [
            "/wxa/business/getuserencryptkey",
            "/wxa/checksession",
            "/wxa/resetusersessionkey",
        ];
        assert_eq!(paths(|row| row.signed == Signed::SessionAlone), alone);
        let both = [
            "/xpay/cancel_currency_pay",
            "/xpay/currency_pay",
            "/xpay/query_user_balance",
        ];
        assert_eq!(paths(|row| row.signed == Signed::PayAndSession), both);
        let of_payment = paths(|row| row.path.starts_with("/xpay/"));
        assert_eq!(
            paths(|row| row.signed == Signed::Pay).len(),
            of_payment.len() - both.len()
        );
    }

    #[test]
    fn what_uses_something_up_or_changes_something_does_not_read() {
        for path in [
            "/cgi-bin/message/subscribe/send",
            "/cgi-bin/stable_token",
            "/cgi-bin/token",
            "/customservice/kfaccount/setadmin",
            "/sns/jscode2session",
            "/wxa/business/getuserphonenumber",
            "/wxa/business/insurance_freight/open",
            "/wxa/getpluginopenpid",
            "/wxa/getwxacode",
            "/wxa/plugin",
            "/wxa/resetusersessionkey",
            "/xpay/currency_pay",
        ] {
            assert!(find(path).is_some() && !is_read(path), "{path}");
        }
        for path in [
            "/cgi-bin/media/get",
            "/cgi-bin/openapi/quota/get",
            "/datacube/getweanalysisappidvisitpage",
            "/wxa/checksession",
            "/wxa/getwxacodeunlimit",
            "/wxa/msg_sec_check",
            "/xpay/query_user_balance",
        ] {
            assert!(is_read(path), "{path}");
        }
    }

    #[test]
    fn nothing_reads_whose_name_is_a_deed() {
        let deeds = [
            "add", "apply", "bind", "cancel", "clear", "create", "del", "modify", "notify_",
            "refund", "remove", "reset", "send", "set", "submit", "update", "upload",
        ];
        for path in paths(|row| row.is_read) {
            let name = path.rsplit('/').next().unwrap_or_default();
            assert!(!deeds.iter().any(|deed| name.starts_with(deed)), "{path}");
        }
    }
}
