// An app that uses silenceper/wechat as its documentation tells: does the jobs of `tests/sdks.rs` for the input in its
// argument, and prints what came of them. Secret values are printed as their SHA-256, because what it prints is an
// output.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"github.com/silenceper/wechat/v2"
	"github.com/silenceper/wechat/v2/cache"
	"github.com/silenceper/wechat/v2/miniprogram"
	mini "github.com/silenceper/wechat/v2/miniprogram/config"
	"github.com/silenceper/wechat/v2/miniprogram/qrcode"
	"github.com/silenceper/wechat/v2/miniprogram/security"
	"github.com/silenceper/wechat/v2/miniprogram/subscribe"
	official "github.com/silenceper/wechat/v2/officialaccount/config"
	"github.com/silenceper/wechat/v2/officialaccount/material"
	"github.com/silenceper/wechat/v2/util"
)

type input struct {
	Base      string            `json:"base"`
	AppID     string            `json:"appid"`
	Secret    string            `json:"secret"`
	LoginCode string            `json:"login_code"`
	PhoneCode string            `json:"phone_code"`
	Template  string            `json:"template"`
	Message   map[string]string `json:"message"`
	Scene     string            `json:"scene"`
	LongScene string            `json:"long_scene"`
	Harmless  string            `json:"harmless"`
	Risky     string            `json:"risky"`
}

func main() {
	var in input
	must(json.Unmarshal([]byte(os.Args[1]), &in))
	redirect(in.Base)

	memory := cache.NewMemory()
	app := wechat.NewWechat().GetMiniProgram(&mini.Config{
		AppID: in.AppID, AppSecret: in.Secret, Cache: memory, UseStableAK: true,
	})
	// The SDK has media for official accounts only; the calls are the same.
	files := wechat.NewWechat().GetOfficialAccount(&official.Config{
		AppID: in.AppID, AppSecret: in.Secret, Cache: memory,
	}).GetMaterial()

	session, err := app.GetAuth().Code2Session(in.LoginCode)
	must(err)
	phone, err := app.GetAuth().GetPhoneNumber(in.PhoneCode)
	must(err)
	message, err := app.GetSubscribe().SendGetMsgID(subscription(in, session.OpenID))
	must(err)
	code, err := app.GetQRCode().GetWXACodeUnlimit(qrcode.QRCoder{Scene: in.Scene})
	must(err)
	_, refused := app.GetQRCode().GetWXACodeUnlimit(qrcode.QRCoder{Scene: in.LongScene})
	if refused == nil {
		panic("the scene is too long")
	}
	media, err := files.MediaUploadFromReader(material.MediaTypeImage, "code.jpg", bytes.NewReader(code))
	must(err)
	place, err := files.GetMediaURL(media.MediaID)
	must(err)
	download, err := util.HTTPGet(place)
	must(err)

	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"openid":       session.OpenID,
		"session_key":  digest([]byte(session.SessionKey)),
		"phone":        digest([]byte(phone.PhoneInfo.PurePhoneNumber)),
		"message_sent": message > 0,
		"code":         digest(code),
		"refused":      errcode(refused),
		"download":     digest(download),
		"harmless":     check(app, in.Harmless, session.OpenID),
		"risky":        check(app, in.Risky, session.OpenID),
	}))
}

// redirect gives the SDK, which has WeChat's address built in, a client that goes to another one.
func redirect(base string) {
	to, err := url.Parse(base)
	must(err)
	util.DefaultHTTPClient = &http.Client{Transport: elsewhere{to}}
}

type elsewhere struct{ to *url.URL }

func (it elsewhere) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.URL.Scheme, request.URL.Host = it.to.Scheme, it.to.Host
	return http.DefaultTransport.RoundTrip(request)
}

func subscription(in input, openid string) *subscribe.Message {
	data := map[string]*subscribe.DataItem{}
	for name, value := range in.Message {
		data[name] = &subscribe.DataItem{Value: value}
	}
	return &subscribe.Message{ToUser: openid, TemplateID: in.Template, Data: data}
}

func check(app *miniprogram.MiniProgram, text, openid string) string {
	answer, err := app.GetSecurity().MsgCheck(&security.MsgCheckRequest{
		OpenID: openid, Scene: security.MsgSceneComment, Content: text,
	})
	must(err)
	return string(answer.Result.Suggest)
}

// errcode finds the number in the text, which is all that the SDK tells of it.
func errcode(err error) (code int) {
	text := err.Error()
	_, scanErr := fmt.Sscanf(text, "fetchCode error : errcode=%d", &code)
	must(scanErr)
	return code
}

func digest(of []byte) string {
	sum := sha256.Sum256(of)
	return hex.EncodeToString(sum[:])
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
