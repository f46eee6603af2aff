<?php
// A Mini Program's backend behind wx-sidecar, in PHP 8, with nothing but its built-in server. Run it:
//
//   php -S 127.0.0.1:${PORT:-3000} examples/backends/php/app.php
//
// WECHAT is the sidecar's outbound side, TEMPLATE the id of a subscription template.

function answer(string $route, string $body): array
{
    switch ($route) {
        // Who is calling: the sidecar has checked it, and no client can send these headers.
        case 'GET /me':
            $who = [];
            foreach (['openid', 'unionid', 'appid', 'source', 'env'] as $name) {
                $who[$name] = said("X-WX-$name");
            }
            return json(200, $who);

        // The phone sent ciphertext, and the sidecar decrypted it on the way (a route with open_data = true). Without
        // the header nobody looked into the body, and what it says is the client's own claim.
        case 'POST /phone':
            if (!said('X-WX-Open-Data')) {
                return json(400, ['error' => 'no open data']);
            }
            return json(200, ['phoneNumber' => json_decode($body, true)['openData']['phoneNumber'] ?? null]);

        // A subscription message to whoever asks. The answer is WeChat's, or what is wrong with it as problem+json.
        case 'POST /notify':
            $data = ['thing1' => ['value' => 'Your order is ready']];
            $template = getenv('TEMPLATE') ?: 'your-template-id';
            return wechat('/cgi-bin/message/subscribe/send', ['touser' => said('X-WX-OPENID'), 'template_id' => $template, 'data' => $data]);

        // What WeChat pushes. A user's text is answered by customer service; 503 has the message delivered again.
        case 'POST /wx/push':
            if (said('X-WX-SOURCE') !== 'wx_push') {
                return json(403, ['error' => 'not from WeChat']);
            }
            if (said('X-WX-Msg-Type') !== 'text') {
                return json(200, (object) []);
            }
            $text = ['content' => 'You wrote: ' . json_decode($body, true)['Content']];
            [$status] = wechat('/cgi-bin/message/custom/send', ['touser' => said('X-WX-OPENID'), 'msgtype' => 'text', 'text' => $text]);
            return json($status < 500 ? 200 : 503, (object) []);
    }
    return json(404, ['error' => 'not found']);
}

function wechat(string $path, array $message): array
{
    $context = stream_context_create(['http' => [
        'method' => 'POST',
        'header' => "Content-Type: application/json\r\nAccept: application/problem+json\r\nConnection: close",
        'content' => json_encode($message, JSON_UNESCAPED_UNICODE),
        'ignore_errors' => true,
    ]]);
    $body = file_get_contents((getenv('WECHAT') ?: 'http://127.0.0.1:8081') . $path, false, $context);
    $status = (int) explode(' ', $http_response_header[0] ?? 'HTTP/1.1 502')[1];
    $types = preg_grep('/^content-type:/i', $http_response_header ?? []);
    return [$status, trim(explode(':', end($types) ?: ':text/plain')[1]), (string) $body];
}

function json(int $status, array|object $value): array
{
    return [$status, 'application/json', json_encode($value, JSON_UNESCAPED_SLASHES)];
}

function said(string $name): ?string
{
    return $_SERVER['HTTP_' . strtoupper(strtr($name, '-', '_'))] ?? null;
}

$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
[$status, $type, $body] = answer("$_SERVER[REQUEST_METHOD] $path", file_get_contents('php://input'));
http_response_code($status);
header("Content-Type: $type");
echo $body;
