// A Mini Program's backend behind wx-sidecar, in Go 1.19 or later, with nothing but the standard library. Run it:
//
//	go run examples/backends/go/main.go
//
// PORT is where it listens (3000), WECHAT the sidecar's outbound side, TEMPLATE the id of a subscription template.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
)

type object = map[string]any

// Who is calling: the sidecar has checked it, and no client can send these headers.
func me(w http.ResponseWriter, r *http.Request) {
	who := object{}
	for _, name := range []string{"openid", "unionid", "appid", "source", "env"} {
		who[name] = nil
		if value := r.Header.Get("X-WX-" + name); value != "" {
			who[name] = value
		}
	}
	say(w, 200, who)
}

// The phone sent ciphertext, and the sidecar decrypted it on the way (a route with open_data = true). Without the header
// nobody looked into the body, and what it says is the client's own claim.
func phone(w http.ResponseWriter, r *http.Request) {
	var body struct {
		OpenData struct {
			PhoneNumber *string `json:"phoneNumber"`
		} `json:"openData"`
	}
	if n := r.Header.Get("X-WX-Open-Data"); n == "" || n == "0" || json.NewDecoder(r.Body).Decode(&body) != nil {
		say(w, 400, object{"error": "no open data"})
		return
	}
	say(w, 200, object{"phoneNumber": body.OpenData.PhoneNumber})
}

// A subscription message to whoever asks. The answer is WeChat's, or what is wrong with it as problem+json.
func notify(w http.ResponseWriter, r *http.Request) {
	data := object{"thing1": object{"value": "Your order is ready"}}
	message := object{"touser": r.Header.Get("X-WX-OPENID"), "template_id": setting("TEMPLATE", "your-template-id"), "data": data}
	answer, err := wechat("/cgi-bin/message/subscribe/send", message)
	if err != nil {
		say(w, 502, object{"error": err.Error()})
		return
	}
	defer answer.Body.Close()
	w.Header().Set("Content-Type", answer.Header.Get("Content-Type"))
	w.WriteHeader(answer.StatusCode)
	io.Copy(w, answer.Body)
}

// What WeChat pushes. A user's text is answered by customer service; 503 has the message delivered again.
func push(w http.ResponseWriter, r *http.Request) {
	var body struct{ Content string }
	switch {
	case r.Header.Get("X-WX-SOURCE") != "wx_push":
		say(w, 403, object{"error": "not from WeChat"})
		return
	case r.Header.Get("X-WX-Msg-Type") != "text" || json.NewDecoder(r.Body).Decode(&body) != nil:
		say(w, 200, object{})
		return
	}
	text := object{"content": "You wrote: " + body.Content}
	answer, err := wechat("/cgi-bin/message/custom/send", object{"touser": r.Header.Get("X-WX-OPENID"), "msgtype": "text", "text": text})
	if err != nil || answer.StatusCode >= 500 {
		say(w, 503, object{})
		return
	}
	answer.Body.Close()
	say(w, 200, object{})
}

func wechat(path string, message object) (*http.Response, error) {
	body, _ := json.Marshal(message)
	request, _ := http.NewRequest("POST", setting("WECHAT", "http://127.0.0.1:8081")+path, bytes.NewReader(body))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/problem+json")
	return http.DefaultClient.Do(request)
}

func say(w http.ResponseWriter, status int, value object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(value)
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	routes := map[string]http.HandlerFunc{"GET /me": me, "POST /phone": phone, "POST /notify": notify, "POST /wx/push": push}
	listener, err := net.Listen("tcp", "127.0.0.1:"+setting("PORT", "3000"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on http://%s\n", listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if route := routes[r.Method+" "+r.URL.Path]; route != nil {
			route(w, r)
			return
		}
		say(w, 404, object{"error": "not found"})
	})))
}
