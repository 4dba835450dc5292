<?php

/**
 * Adds a tab to the settings that opens Drawbridge's page of devices and passwords: the user, who is
 * logged in here, is handed over with a token that is valid for a minute and accepted once.
 *
 * Needs Roundcube 1.5 and PHP 7.3, or later.
 *
 * @license Apache-2.0
 */
class drawbridge extends rcube_plugin
{
    public $task   = 'settings';
    public $noajax = true;

    const VALID_FOR = 60; // seconds; Drawbridge accepts no more
    const MIN_KEY   = 32; // bytes
    const MAX_KEY   = 4096;

    private $rc;

    public function init()
    {
        $this->rc = rcmail::get_instance();
        $this->load_config();
        $this->add_texts('localization/');
        $this->add_hook('settings_actions', [$this, 'settings_actions']);
        $this->add_hook('common_headers', [$this, 'common_headers']);
        $this->register_action('plugin.drawbridge', [$this, 'show']);
        $this->register_action('plugin.drawbridge-handover', [$this, 'handover']);
    }

    public function settings_actions($args)
    {
        $args['actions'][] = [
            'action' => 'plugin.drawbridge',
            'class'  => 'password',
            'label'  => 'devices',
            'title'  => 'devicestitle',
            'domain' => 'drawbridge',
        ];

        return $args;
    }

    /**
     * Drawbridge checks the form's Origin, which browsers replace by "null" under Roundcube's "same-origin".
     */
    public function common_headers($args)
    {
        if ($this->rc->action == 'plugin.drawbridge-handover') {
            $args['headers']['Referrer-Policy'] = 'strict-origin';
        }

        return $args;
    }

    /**
     * Shows the tab, with a button that asks for a token.
     */
    public function show()
    {
        // Roundcube adds its request token to the form.
        $form = $this->rc->output->form_tag(
            ['id' => 'drawbridge-ask', 'method' => 'post', 'action' => $this->rc->url('plugin.drawbridge-handover')],
            $this->button([])
        );

        $this->send($form);
    }

    /**
     * Makes a token and shows the form that sends it to Drawbridge.
     */
    public function handover()
    {
        // check_request() accepts an empty form.
        $request = rcube_utils::get_input_string('_token', rcube_utils::INPUT_POST);
        if (!$this->rc->check_request() || !hash_equals($this->rc->get_request_token(), $request)) {
            rcube::raise_error(['code' => 403, 'message' => 'Request security check failed'], false, true);
        }

        try {
            $url   = $this->public_url();
            $token = $this->token($this->key(), $url, $this->account());
        }
        catch (Exception $e) {
            rcube::raise_error([
                    'code' => 500, 'file' => __FILE__, 'line' => $e->getLine(),
                    'message' => 'drawbridge: ' . $e->getMessage(),
                ], true, false
            );
            $this->rc->output->show_message('drawbridge.unavailable', 'error');
            $this->show();
            return;
        }

        // The button has the method: Roundcube would add its request token to a form that has one.
        $hidden = new html_hiddenfield(['name' => 'token', 'value' => $token]);
        $button = $this->button(['id' => 'drawbridge-go', 'formmethod' => 'post', 'formaction' => $url . '/account/handover']);
        $this->include_script('drawbridge.js');
        $this->send(html::tag('form', ['id' => 'drawbridge-handover'], $hidden->show() . $button));
    }

    private function button($attrib)
    {
        $attrib += ['type' => 'submit', 'class' => 'button mainaction'];

        return html::tag('button', $attrib, rcube::Q($this->gettext('open')));
    }

    private function send($form)
    {
        $this->rc->output->set_pagetitle($this->gettext('devices'));
        $this->rc->output->add_handler('plugin.body', function () use ($form) {
            return html::div('box formcontainer scroller',
                html::div('boxtitle', rcube::Q($this->gettext('devices')))
                . html::div('boxcontent formcontent', html::p(null, rcube::Q($this->gettext('explanation'))) . $form)
            );
        });
        $this->rc->output->send('plugin');
    }

    private function public_url()
    {
        $url = rtrim((string) $this->rc->config->get('drawbridge_url'), '/');
        if (!preg_match('!^https?://[^/?#@\s]+[^?#\s]*$!D', $url)) {
            throw new Exception('drawbridge_url is not the address of a site: write https://mail.example.org');
        }

        return $url;
    }

    /**
     * The name of the IMAP login, to which Roundcube's username_domain was added.
     */
    private function account()
    {
        $name = (string) $_SESSION['username'];
        if (strpos($name, '@') === false) {
            throw new Exception("the login name $name has no domain: set username_domain, and log in again");
        }

        return $name;
    }

    /**
     * The key, read at each use so that a new one counts at once.
     */
    private function key()
    {
        $file = (string) $this->rc->config->get('drawbridge_key_file');
        $key  = $file === '' ? false : @file_get_contents($file, false, null, 0, self::MAX_KEY + 3);
        if ($key === false) {
            throw new Exception("drawbridge_key_file: '$file' cannot be read");
        }
        if (fileperms($file) & 0007) {
            throw new Exception("drawbridge_key_file: $file is open to everyone: 'chmod o= $file'");
        }
        $key = preg_replace('/\r?\n?\z/', '', $key, 1);
        if (strlen($key) < self::MIN_KEY || strlen($key) > self::MAX_KEY || strpbrk($key, "\r\n\0") !== false) {
            throw new Exception("drawbridge_key_file: $file must hold one line of " . self::MIN_KEY . ' bytes or more');
        }

        return $key;
    }

    /**
     * A JWT (RFC 7519) with HS256.
     */
    private function token($key, $audience, $account)
    {
        $now    = time();
        $claims = ['aud' => $audience, 'sub' => $account, 'iat' => $now, 'exp' => $now + self::VALID_FOR, 'jti' => bin2hex(random_bytes(16))];
        $signed = $this->encode(json_encode(['alg' => 'HS256', 'typ' => 'JWT']))
            . '.' . $this->encode(json_encode($claims, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES));

        return $signed . '.' . $this->encode(hash_hmac('sha256', $signed, $key, true));
    }

    private function encode($bytes)
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}
