// A Mini Program's backend behind wx-sidecar, in Java 17 or later, with nothing but the JDK. Run it:
//
//   java examples/backends/java/App.java
//
// PORT is where it listens (3000), WECHAT the sidecar's outbound side, TEMPLATE the id of a subscription template. The
// JDK has no JSON: the patterns here do for an example, and yours has a library.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.Executors;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.Stream;

public class App {
    static final Pattern NUMBER = Pattern.compile("\"openData\":\\s*\\{[^{}]*\"phoneNumber\":\\s*(\"[^\"]*\")");
    static final Pattern CONTENT = Pattern.compile("\"Content\":\\s*\"((?:[^\"\\\\]|\\\\.)*)\"");
    static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

    record Answer(int status, String type, String body) {}

    static Answer answer(HttpExchange exchange) throws Exception {
        var body = new String(exchange.getRequestBody().readAllBytes(), "UTF-8");
        return switch (exchange.getRequestMethod() + " " + exchange.getRequestURI().getPath()) {
            case "GET /me" -> me(exchange);
            case "POST /phone" -> phone(exchange, body);
            case "POST /notify" -> notify(exchange);
            case "POST /wx/push" -> push(exchange, body);
            default -> json(404, "{\"error\":\"not found\"}");
        };
    }

    // Who is calling: the sidecar has checked it, and no client can send these headers.
    static Answer me(HttpExchange exchange) {
        var members = Stream.of("openid", "unionid", "appid", "source", "env").map(name -> {
            var value = said(exchange, "X-WX-" + name);
            return "\"" + name + "\":" + (value == null ? "null" : "\"" + value + "\"");
        });
        return json(200, members.collect(Collectors.joining(",", "{", "}")));
    }

    // The phone sent ciphertext, and the sidecar decrypted it on the way (a route with open_data = true). Without the
    // header nobody looked into the body, and what it says is the client's own claim.
    static Answer phone(HttpExchange exchange, String body) {
        var pieces = said(exchange, "X-WX-Open-Data");
        if (pieces == null || pieces.equals("0")) return json(400, "{\"error\":\"no open data\"}");
        var number = NUMBER.matcher(body);
        return json(200, "{\"phoneNumber\":" + (number.find() ? number.group(1) : "null") + "}");
    }

    // A subscription message to whoever asks. The answer is WeChat's, or what is wrong with it as problem+json.
    static Answer notify(HttpExchange exchange) throws Exception {
        return wechat("/cgi-bin/message/subscribe/send", """
            {"touser":"%s","template_id":"%s","data":{"thing1":{"value":"Your order is ready"}}}"""
            .formatted(said(exchange, "X-WX-OPENID"), setting("TEMPLATE", "your-template-id")));
    }

    // What WeChat pushes. A user's text is answered by customer service; 503 has the message delivered again.
    static Answer push(HttpExchange exchange, String body) throws Exception {
        if (!"wx_push".equals(said(exchange, "X-WX-SOURCE"))) return json(403, "{\"error\":\"not from WeChat\"}");
        var content = CONTENT.matcher(body);
        if (!"text".equals(said(exchange, "X-WX-Msg-Type")) || !content.find()) return json(200, "{}");
        var answer = wechat("/cgi-bin/message/custom/send", """
            {"touser":"%s","msgtype":"text","text":{"content":"You wrote: %s"}}"""
            .formatted(said(exchange, "X-WX-OPENID"), content.group(1)));
        return json(answer.status() < 500 ? 200 : 503, "{}");
    }

    static Answer wechat(String path, String message) throws Exception {
        var request = HttpRequest.newBuilder(URI.create(setting("WECHAT", "http://127.0.0.1:8081") + path))
            .header("Content-Type", "application/json").header("Accept", "application/problem+json")
            .POST(HttpRequest.BodyPublishers.ofString(message)).build();
        var answer = CLIENT.send(request, HttpResponse.BodyHandlers.ofString());
        return new Answer(answer.statusCode(), answer.headers().firstValue("Content-Type").orElse("text/plain"), answer.body());
    }

    static Answer json(int status, String body) {
        return new Answer(status, "application/json", body);
    }

    static String said(HttpExchange exchange, String name) {
        return exchange.getRequestHeaders().getFirst(name);
    }

    static String setting(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    static void serve(HttpExchange exchange) throws IOException {
        Answer answer;
        try {
            answer = answer(exchange);
        } catch (Exception error) {
            error.printStackTrace();
            answer = json(500, "{}");
        }
        var bytes = answer.body().getBytes("UTF-8");
        exchange.getResponseHeaders().set("Content-Type", answer.type());
        exchange.sendResponseHeaders(answer.status(), bytes.length);
        exchange.getResponseBody().write(bytes);
        exchange.close();
    }

    public static void main(String[] arguments) throws IOException {
        var port = Integer.parseInt(setting("PORT", "3000"));
        var server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.setExecutor(Executors.newCachedThreadPool());
        server.createContext("/", App::serve);
        server.start();
        System.out.println("listening on http://127.0.0.1:" + server.getAddress().getPort());
    }
}
