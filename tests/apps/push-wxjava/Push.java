import cn.binarywang.wx.miniapp.config.impl.WxMaDefaultConfigImpl;
import cn.binarywang.wx.miniapp.util.crypt.WxMaCryptUtils;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.StringReader;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.Collectors;
import javax.xml.parsers.DocumentBuilderFactory;
import me.chanjar.weixin.common.util.crypto.SHA1;
import org.xml.sax.InputSource;

/**
 * WeChat's servers as WxJava would be them: encrypts the messages of the file named in its argument, posts each as WeChat
 * does, decrypts what is answered, and prints a line for each. {@code tests/push_apps.rs} has written the file.
 */
public class Push {
    private final HttpClient wechat = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final JsonObject given;

    private Push(JsonObject given) {
        this.given = given;
    }

    public static void main(String[] args) throws Exception {
        var given = JsonParser.parseString(Files.readString(Path.of(args[0]))).getAsJsonObject();
        new Push(given).run();
    }

    private void run() throws Exception {
        var keys = new ArrayList<Key>();
        for (var key : given.getAsJsonArray("keys")) {
            keys.add(new Key(key.getAsJsonObject(), text(given, "appid")));
        }
        for (var each : given.getAsJsonArray("messages")) {
            var message = each.getAsJsonObject();
            System.out.println(push(keys.get(message.get("key").getAsInt()), message));
        }
    }

    private JsonObject push(Key key, JsonObject message) throws Exception {
        var text = text(message, "text");
        var made = key.crypt.encryptContext(text);
        var query = new LinkedHashMap<String, String>();
        query.put("signature", SHA1.gen(key.token, made.getTimeStamp(), made.getNonce()));
        query.put("timestamp", made.getTimeStamp());
        query.put("nonce", made.getNonce());
        query.put("openid", text(message, "openid"));
        query.put("encrypt_type", "aes");
        query.put("msg_signature", made.getSignature());
        // WeChat's Content-Type says nothing of the format.
        var request = HttpRequest.newBuilder(URI.create(text(given, "url") + "?" + encode(query)))
            .header("Content-Type", "text/xml")
            .POST(HttpRequest.BodyPublishers.ofString(envelope(text, made.getEncrypt())));
        var answer = wechat.send(request.build(), HttpResponse.BodyHandlers.ofString());

        var around = 20 + text.getBytes(StandardCharsets.UTF_8).length + text(given, "appid").length();
        var said = new JsonObject();
        said.addProperty("status", answer.statusCode());
        said.addProperty("padding", Base64.getDecoder().decode(made.getEncrypt()).length - around);
        addAnswer(said, answer.body(), key, made.getNonce());
        return said;
    }

    private String envelope(String text, String encrypted) {
        if (text.startsWith("{")) {
            var envelope = new JsonObject();
            envelope.addProperty("ToUserName", text(given, "to"));
            envelope.addProperty("Encrypt", encrypted);
            return envelope.toString();
        }
        return "<xml><ToUserName><![CDATA[" + text(given, "to") + "]]></ToUserName><Encrypt><![CDATA[" + encrypted
            + "]]></Encrypt></xml>";
    }

    /** It throws if the signature is another. */
    private static void addAnswer(JsonObject said, String body, Key key, String nonce) throws Exception {
        if (body.startsWith("{") && body.contains("Encrypt")) {
            var reply = JsonParser.parseString(body).getAsJsonObject();
            check(reply.getAsJsonPrimitive("TimeStamp").isNumber() && text(reply, "Nonce").equals(nonce), body);
            said.addProperty("reply", key.crypt.decryptContent(text(reply, "MsgSignature"), text(reply, "TimeStamp"),
                text(reply, "Nonce"), text(reply, "Encrypt")));
        } else if (body.startsWith("<")) {
            var source = new InputSource(new StringReader(body));
            var reply = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(source).getDocumentElement();
            java.util.function.Function<String, String> field =
                name -> reply.getElementsByTagName(name).item(0).getTextContent();
            check(field.apply("Nonce").equals(nonce), body);
            said.addProperty("reply", key.crypt.decryptXml(field.apply("MsgSignature"), field.apply("TimeStamp"), nonce,
                body));
        } else {
            said.addProperty("answer", body);
        }
    }

    private static void check(boolean holds, String body) {
        if (!holds) {
            throw new IllegalStateException("not as WeChat wants it: " + body);
        }
    }

    private static String encode(Map<String, String> query) {
        return query.entrySet().stream()
            .map(it -> it.getKey() + "=" + URLEncoder.encode(it.getValue(), StandardCharsets.UTF_8))
            .collect(Collectors.joining("&"));
    }

    private static String text(JsonObject object, String name) {
        return object.get(name).getAsString();
    }

    /** A pair of token and EncodingAESKey, as the console has it. */
    private static class Key {
        final String token;
        final WxMaCryptUtils crypt;

        Key(JsonObject key, String appid) {
            token = text(key, "token");
            var config = new WxMaDefaultConfigImpl();
            config.setAppid(appid);
            config.setToken(token);
            config.setAesKey(text(key, "aes_key"));
            crypt = new WxMaCryptUtils(config);
        }
    }
}
