//! A push of each kind that WeChat's documentation shows, with invented values.
//!
//! The fields are those of the pages, in their order and with their types: what is a text there though it looks like a
//! number is one here too. `$appid` and `$openid` are filled in when it is sent.

use super::Push;
use super::document::Fields;
use super::message::USER;

/// Who tells of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    User,
    Platform,
}

/// The names that [`Push::sample`] knows: the kind of a message, or the event, with its case behind it where there is
/// more than one.
pub const SAMPLES: &[&str] = &names();

const fn names() -> [&'static str; EVENTS.len() + MESSAGES.len()] {
    let mut names = [""; EVENTS.len() + MESSAGES.len()];
    let mut at = 0;
    while at < MESSAGES.len() {
        names[at] = MESSAGES[at];
        at += 1;
    }
    while at < names.len() {
        names[at] = EVENTS[at - MESSAGES.len()].0;
        at += 1;
    }
    names
}

const MESSAGES: [&str; 4] = ["text", "image", "miniprogrampage", "container_check"];

pub(super) fn sample(name: &str) -> Option<Push> {
    match name {
        "text" => return Some(Push::text(USER, "this is a test")),
        "image" => return Some(Push::image(USER)),
        "miniprogrampage" => return Some(Push::page(USER)),
        "container_check" => return Some(Push::bare(fields(r#"{"action":"CheckContainerPath"}"#))),
        _ => {}
    }
    let (_, event, by, json) = EVENTS.iter().find(|(known, ..)| *known == name)?;
    let push = Push::event_of((*event).to_owned(), fields(json));
    Some(match by {
        By::User => push,
        By::Platform => push.told_by_platform(),
    })
}

fn fields(json: &str) -> Fields {
    serde_json::from_str(json).expect("a sample is an object")
}

/// Name, event, who tells, fields.
const EVENTS: [(&str, &str, By, &str); 44] = [
    (
        "user_enter_tempsession",
        "user_enter_tempsession",
        By::User,
        r#"{"SessionFrom":"sf"}"#,
    ),
    // Subscription messages.
    (
        "subscribe_popup_one",
        "subscribe_msg_popup_event",
        By::User,
        r#"{"List":{"TemplateId":"t1","SubscribeStatusString":"accept","PopupScene":"0"}}"#,
    ),
    (
        "subscribe_popup_many",
        "subscribe_msg_popup_event",
        By::User,
        r#"{"List":[{"TemplateId":"t1","SubscribeStatusString":"accept","PopupScene":"0"},{"TemplateId":"t2","SubscribeStatusString":"reject","PopupScene":"0"}]}"#,
    ),
    (
        "subscribe_change",
        "subscribe_msg_change_event",
        By::User,
        r#"{"List":{"TemplateId":"t1","SubscribeStatusString":"reject"}}"#,
    ),
    (
        "subscribe_sent",
        "subscribe_msg_sent_event",
        By::User,
        r#"{"List":{"TemplateId":"t1","MsgID":"1700827132819554304","ErrorCode":"0","ErrorStatus":"success"}}"#,
    ),
    // Content security.
    (
        "wxa_media_check",
        "wxa_media_check",
        By::User,
        r#"{"appid":"$appid","trace_id":"60ae120f-371d5872-4941a05b","version":2,"errcode":0,"errmsg":"ok","result":{"suggest":"risky","label":20001},"detail":[{"strategy":"content_model","errcode":0,"suggest":"risky","label":20006,"prob":90}]}"#,
    ),
    (
        "wxa_media_check_failed",
        "wxa_media_check",
        By::User,
        r#"{"appid":"$appid","trace_id":"60ae120f-371d5872-4941a05c","version":2,"errcode":-1008,"errmsg":"download error","result":{"suggest":"","label":0},"detail":[]}"#,
    ),
    // Authorisation.
    (
        "user_info_modified",
        "user_info_modified",
        By::Platform,
        r#"{"OpenID":"$openid","AppID":"$appid","RevokeInfo":"6","PluginID":"","OpenPID":""}"#,
    ),
    (
        "user_authorization_revoke",
        "user_authorization_revoke",
        By::Platform,
        r#"{"OpenID":"$openid","AppID":"$appid","RevokeInfo":"1","PluginID":"","OpenPID":""}"#,
    ),
    (
        "user_authorization_cancellation",
        "user_authorization_cancellation",
        By::Platform,
        r#"{"OpenID":"$openid","AppID":"$appid","PluginID":"","OpenPID":""}"#,
    ),
    // The account and its reviews.
    (
        "weapp_audit_success",
        "weapp_audit_success",
        By::Platform,
        r#"{"SuccTime":1488856741}"#,
    ),
    (
        "weapp_audit_fail",
        "weapp_audit_fail",
        By::Platform,
        r#"{"Reason":"1:the account's information does not fit:<br>(1):a name is missing<br>","FailTime":1488856591,"ScreenShot":"mid1|mid2"}"#,
    ),
    (
        "weapp_audit_delay",
        "weapp_audit_delay",
        By::Platform,
        r#"{"Reason":"there is much to look at","DelayTime":1488856591}"#,
    ),
    (
        "wxa_nickname_audit",
        "wxa_nickname_audit",
        By::Platform,
        r#"{"ret":3,"nickname":"A name","reason":""}"#,
    ),
    (
        "wxa_category_audit",
        "wxa_category_audit",
        By::Platform,
        r#"{"ret":3,"first":287,"second":618,"reason":""}"#,
    ),
    (
        "wxa_privacy_apply",
        "wxa_privacy_apply",
        By::Platform,
        r#"{"result_info":{"api_name":"\"wx.chooseAddress\"","apply_time":"1650964000","audit_id":"4218","audit_time":"1650964100","reason":"\"\"","status":"1"}}"#,
    ),
    (
        "wxa_punish_event",
        "wxa_punish_event",
        By::Platform,
        r#"{"event_type":"1","punish_id":"p1","appid":"$appid","punish_time":"1650964000","illegal_reason":"r","illegal_content":"c","rule_name":"n","rule_url":"https://example.com/rule","adjust_guide_url":"https://example.com/guide","detail":"{\"a\":1}"}"#,
    ),
    (
        "wxa_illegal_record",
        "wxa_illegal_record",
        By::Platform,
        r#"{"illegal_record_id":"i1","create_time":1650964000}"#,
    ),
    (
        "wxa_appeal_record",
        "wxa_appeal_record",
        By::Platform,
        r#"{"appeal_record_id":"a1","appeal_time":1650964000}"#,
    ),
    (
        "wx_verify_pay_succ",
        "wx_verify_pay_succ",
        By::Platform,
        r#"{"taskid":"v1"}"#,
    ),
    (
        "wx_verify_dispatch",
        "wx_verify_dispatch",
        By::Platform,
        r#"{"taskid":"v1","provider":"p"}"#,
    ),
    (
        "debug",
        "debug_demo",
        By::User,
        r#"{"debug_str":"hello world"}"#,
    ),
    // Trade.
    (
        "trade_manage_remind_access_api",
        "trade_manage_remind_access_api",
        By::Platform,
        r#"{"msg":"use the API"}"#,
    ),
    (
        "trade_manage_remind_shipping",
        "trade_manage_remind_shipping",
        By::Platform,
        r#"{"transaction_id":"4200001776202303","merchant_id":"1230000109","sub_merchant_id":"","merchant_trade_no":"N1","pay_time":1650964000,"msg":"ship it"}"#,
    ),
    (
        "trade_manage_order_settlement",
        "trade_manage_order_settlement",
        By::Platform,
        r#"{"transaction_id":"4200001776202303","merchant_id":"1230000109","sub_merchant_id":"","merchant_trade_no":"N1","pay_time":1650964000,"shipped_time":1650965000,"estimated_settlement_time":1651965000,"confirm_receive_method":1,"confirm_receive_time":1651064000,"settlement_time":1651065000}"#,
    ),
    (
        "wxa_trade_controlled",
        "wxa_trade_controlled",
        By::Platform,
        r#"{"appid":"$appid","msg":"payments are restricted"}"#,
    ),
    // Virtual Payment.
    (
        "xpay_goods_deliver_notify",
        "xpay_goods_deliver_notify",
        By::Platform,
        r#"{"OpenId":"$openid","OutTradeNo":"N1","Env":1,"WeChatPayInfo":{"MchOrderNo":"m","TransactionId":"t","PaidTime":1700000000},"GoodsInfo":{"ProductId":"p","Quantity":1,"OrigPrice":100,"ActualPrice":100,"Attach":"a"},"RetryTimes":0}"#,
    ),
    (
        "xpay_goods_deliver_notify_team",
        "xpay_goods_deliver_notify",
        By::Platform,
        r#"{"OpenId":"$openid","OutTradeNo":"N2","Env":0,"WeChatPayInfo":{"MchOrderNo":"m","TransactionId":"t","PaidTime":1700000000},"GoodsInfo":{"ProductId":"p","Quantity":1,"OrigPrice":100,"ActualPrice":80,"Attach":"a"},"TeamInfo":{"ActivityId":"a1","TeamId":"t1","TeamType":1,"TeamAction":0},"RetryTimes":0}"#,
    ),
    (
        "xpay_coin_pay_notify",
        "xpay_coin_pay_notify",
        By::Platform,
        r#"{"OpenId":"$openid","OutTradeNo":"N3","Env":1,"WeChatPayInfo":{"MchOrderNo":"m","TransactionId":"t","PaidTime":1700000000},"CoinInfo":{"Quantity":10,"OrigPrice":100,"ActualPrice":100,"Attach":"a"},"RetryTimes":0}"#,
    ),
    (
        "xpay_refund_notify",
        "xpay_refund_notify",
        By::Platform,
        r#"{"OpenId":"$openid","WxRefundId":"r1","MchRefundId":"R1","WxOrderId":"w1","MchOrderId":"N1","RefundFee":100,"RetCode":0,"RetMsg":"ok","RefundStartTimestamp":1700000000,"RefundSuccTimestamp":1700000100,"WxpayRefundTransactionId":"50300001","RetryTimes":0}"#,
    ),
    (
        "xpay_complaint_notify",
        "xpay_complaint_notify",
        By::Platform,
        r#"{"OpenId":"$openid","ComplaintId":"c1","Orders":[{"OutTradeNo":"N1","TransactionId":"t"}],"RetryTimes":0}"#,
    ),
    // Carriers ask, and want a document.
    (
        "add_waybill",
        "add_waybill",
        By::Platform,
        r#"{"Token":"TOKEN","OrderID":"01234567890123456789","BizID":"xyz","BizPwd":"xyz123","ShopAppID":"$appid","WayBillID":"","Remark":"careful","Sender":{"Name":"Zhang","Mobile":"020-88888888","Province":"Guangdong"},"Receiver":{"Name":"Wang","Mobile":"13800000000","Province":"Guangdong"},"Cargo":{"Weight":1.2,"Space_X":20.5,"Space_Y":15.0,"Space_Z":10.0,"Count":2,"DetailList":[{"Name":"a bag","Count":1}]},"Service":{"ServiceType":0,"ServiceName":"standard"}}"#,
    ),
    (
        "cancel_waybill",
        "cancel_waybill",
        By::Platform,
        r#"{"OrderID":"01234567890123456789","BizID":"xyz","BizPwd":"xyz123","ShopAppID":"$appid","WayBillID":"123456789"}"#,
    ),
    (
        "get_quota",
        "get_quota",
        By::Platform,
        r#"{"BizID":"xyz","BizPwd":"xyz123","ShopAppID":"$appid"}"#,
    ),
    (
        "check_biz",
        "check_biz",
        By::Platform,
        r#"{"BizID":"xyz","BizPwd":"xyz123","ShopAppID":"$appid","ShopName":"shop","ShopTelphone":"18677778888","SenderAddress":"Guangzhou"}"#,
    ),
    (
        "add_express_path",
        "add_express_path",
        By::Platform,
        r#"{"DeliveryID":"TEST","WayBillId":"123456789","Version":3,"Count":1,"OrderId":"01234567890123456789","Actions":[{"ActionTime":1533052800,"ActionType":100001,"ActionMsg":"collected"}]}"#,
    ),
    (
        "update_waybill_status",
        "update_waybill_status",
        By::Platform,
        r#"{"shopid":"s1","shop_order_id":"N1","shop_no":"1","waybill_id":"w1","action_time":1533052800,"order_status":302,"action_msg":"","agent":{"name":"Li","phone":"13800000000"}}"#,
    ),
    // Others of which only the name and a field or two are told.
    (
        "complaint_callback",
        "complaint_callback",
        By::Platform,
        r#"{"complaint_order_id":"c1"}"#,
    ),
    (
        "retail_pay_notify",
        "retail_pay_notify",
        By::Platform,
        r#"{"mchid":"1230000109","out_trade_no":"N1","transaction_id":"t"}"#,
    ),
    (
        "retail_refund_notify",
        "retail_refund_notify",
        By::Platform,
        r#"{"mchid":"1230000109","out_refund_no":"R1","refund_id":"r1"}"#,
    ),
    (
        "notify_service_msg_send_result",
        "notify_service_msg_send_result",
        By::User,
        r#"{"notify_type":1,"errcode":0,"errmsg":"ok"}"#,
    ),
    (
        "secvod_upload_event",
        "secvod_upload_event",
        By::Platform,
        r#"{"upload_event":{"media_id":28918028,"source_context":"s","errcode":0,"errmsg":"ok"}}"#,
    ),
    (
        "wxa_comment_bad_score",
        "wxa_comment_bad_score",
        By::User,
        r#"{"score":100,"content":"bad"}"#,
    ),
    (
        "iot_voip_notify",
        "iot_voip_notify",
        By::User,
        r#"{"sn":"d1","room_id":"r1"}"#,
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_sample_has_a_name_of_its_own_and_can_be_had() {
        let unique: BTreeSet<_> = SAMPLES.iter().collect();
        assert_eq!(unique.len(), SAMPLES.len());
        for name in SAMPLES {
            assert!(sample(name).is_some(), "{name}");
        }
        assert!(sample("nothing").is_none());
    }
}
