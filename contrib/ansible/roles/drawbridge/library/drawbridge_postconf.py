#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Sets parameters of main.cf and options of a service of master.cf by postconf, where they differ."""

import re

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: drawbridge_postconf
short_description: Set parameters of main.cf and services of master.cf
description:
  - Compares with what postconf reports, and changes what differs.
options:
  src:
    description: A file on the machine in the form of main.cf, whose parameters are set.
    type: path
  override:
    description: Values in place of those of the file.
    type: dict
    default: {}
  extend:
    description: Parameters that are lists. Where the site has set one, the first element of the file's value is put in front of it.
    type: list
    elements: str
    default: []
  service:
    description: A service of master.cf, such as submission/inet. It is added if it is missing.
    type: str
  options:
    description: Options of the service (-o).
    type: dict
    default: {}
author: The Drawbridge maintainers
"""

EXAMPLES = r"""
- drawbridge_postconf:
    service: submission/inet
    options: {smtpd_sasl_auth_enable: "yes"}
"""


def words(text):
    return re.sub(r"\s+", " ", text).strip()


def read(path):
    """Returns the parameters of a file in the form of main.cf."""
    parameters, name = {}, None
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if line[0].isspace() and name:
                parameters[name] += " " + line.strip()
            else:
                name, _, value = line.partition("=")
                name = name.strip()
                parameters[name] = value.strip()
    return {name: words(value) for name, value in parameters.items()}


class Postconf:
    def __init__(self, module):
        self.module = module
        self.changed = []

    def run(self, *arguments):
        status, out, err = self.module.run_command(["postconf", *arguments])
        if status != 0:
            self.module.fail_json(msg=f"postconf {' '.join(arguments)}: {err.strip()}")
        return out

    def change(self, option, name, value):
        self.changed.append(f"{name} = {value}")
        if not self.module.check_mode:
            self.run(option, f"{name}={value}")

    def main(self, parameters, extend):
        # Only what main.cf has: a default that equals a value may be another one in the next Postfix.
        site = {}
        for line in self.run("-n").splitlines():
            name, _, value = line.partition("=")
            site[name.strip()] = words(value)
        for name, value in parameters.items():
            current = site.get(name, "")
            if name in extend and current:
                first = re.split(r"[,\s]", value)[0]
                if first in re.split(r"[,\s]+", current):
                    continue
                value = f"{first}, {current}"
            if current != value:
                self.change("-e", name, value)

    def service(self, name, options):
        service, _, kind = name.partition("/")
        if not self.run("-M", name).strip():
            self.change("-Me", name, f"{service} {kind} n - y - - smtpd")
        current = {}
        for line in self.run("-P", f"{name}/*").splitlines():
            option, _, value = line.partition("=")
            current[option.strip()] = words(value)
        for option, value in options.items():
            if current.get(f"{name}/{option}") != str(value):
                self.change("-Pe", f"{name}/{option}", value)


def main():
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "path"},
            "override": {"type": "dict", "default": {}},
            "extend": {"type": "list", "elements": "str", "default": []},
            "service": {"type": "str"},
            "options": {"type": "dict", "default": {}},
        },
        required_one_of=[["src", "service"]],
        supports_check_mode=True,
    )
    postconf = Postconf(module)
    if module.params["src"]:
        parameters = read(module.params["src"])
        parameters.update(module.params["override"])
        postconf.main(parameters, module.params["extend"])
    if module.params["service"]:
        postconf.service(module.params["service"], module.params["options"])
    module.exit_json(changed=bool(postconf.changed), set=postconf.changed)


if __name__ == "__main__":
    main()
