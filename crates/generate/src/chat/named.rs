//! Prompt formats by name, for models that bring no template.

/// Name and Jinja text. Each is written from the format's public description: roles, their marks, where a turn ends.
pub(super) static TEMPLATES: &[(&str, &str)] = &[
    (
        "chatml",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    (
        "llama2",
        "{% set system = messages[0].content if messages[0].role == 'system' else '' %}\
         {% for m in messages if m.role != 'system' %}\
         {% if m.role == 'user' %}\
         {{ bos_token }}[INST] {% if system and loop.first %}<<SYS>>\n{{ system }}\n<</SYS>>\n\n{% endif %}\
         {{ m.content | trim }} [/INST]\
         {% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}\
         {% endfor %}",
    ),
    (
        "llama3",
        "{{ bos_token }}{% for m in messages %}\
         <|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}\
         {% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    ),
    (
        "llama4",
        "{{ bos_token }}{% for m in messages %}\
         <|header_start|>{{ m.role }}<|header_end|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}\
         {% if add_generation_prompt %}<|header_start|>assistant<|header_end|>\n\n{% endif %}",
    ),
    (
        "gemma",
        "{{ bos_token }}{% set system = messages[0].content ~ '\n\n' if messages[0].role == 'system' else '' %}\
         {% for m in messages if m.role != 'system' %}\
         <start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n\
         {{ system if loop.first }}{{ m.content | trim }}<end_of_turn>\n{% endfor %}\
         {% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    ),
    (
        "mistral",
        "{{ bos_token }}{% set system = messages[0].content ~ '\n\n' if messages[0].role == 'system' else '' %}\
         {% for m in messages if m.role != 'system' %}\
         {% if m.role == 'user' %}[INST] {{ system if loop.first }}{{ m.content }}[/INST]\
         {% else %} {{ m.content | trim }}{{ eos_token }}{% endif %}\
         {% endfor %}",
    ),
    (
        "mistral-v7",
        "{{ bos_token }}{% for m in messages %}\
         {% if m.role == 'system' %}[SYSTEM_PROMPT]{{ m.content }}[/SYSTEM_PROMPT]\
         {% elif m.role == 'user' %}[INST]{{ m.content }}[/INST]\
         {% else %}{{ m.content }}{{ eos_token }}{% endif %}\
         {% endfor %}",
    ),
    (
        "phi3",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
    (
        "zephyr",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
    (
        "deepseek",
        "{{ bos_token }}{% for m in messages %}\
         {% if m.role == 'user' %}<｜User｜>{{ m.content }}\
         {% elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content }}{{ eos_token }}\
         {% else %}{{ m.content }}{% endif %}\
         {% endfor %}{% if add_generation_prompt %}<｜Assistant｜>{% endif %}",
    ),
    (
        "command-r",
        "{{ bos_token }}{% set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} %}\
         {% for m in messages %}<|START_OF_TURN_TOKEN|><|{{ names[m.role] }}_TOKEN|>{{ m.content | trim }}\
         <|END_OF_TURN_TOKEN|>{% endfor %}\
         {% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
    ),
    (
        "glm4",
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
    (
        "granite",
        "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n{% endfor %}\
         {% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
    ),
    (
        "exaone",
        "{% for m in messages %}[|{{ m.role }}|]{{ m.content | trim }}{{ '\n' if m.role == 'user' else '[|endofturn|]\n' }}\
         {% endfor %}{% if add_generation_prompt %}[|assistant|]{% endif %}",
    ),
    (
        "gpt-oss",
        "{% for m in messages %}<|start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' }}<|message|>\
         {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
    ),
    (
        "vicuna",
        "{{ bos_token }}{% for m in messages %}\
         {% if m.role == 'user' %}USER: {{ m.content }}\n\
         {% elif m.role == 'assistant' %}ASSISTANT: {{ m.content }}{{ eos_token }}\n\
         {% else %}{{ m.content }}\n\n{% endif %}\
         {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    ),
    (
        "alpaca",
        "{% for m in messages %}\
         {% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n\n\
         {% elif m.role == 'assistant' %}### Response:\n{{ m.content }}{{ eos_token }}\n\n\
         {% else %}{{ m.content }}\n\n{% endif %}\
         {% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}",
    ),
    (
        "rwkv-world",
        "{% for m in messages %}{{ {'system': 'System', 'user': 'User', 'assistant': 'Assistant'}[m.role] }}: \
         {{ m.content | trim }}\n\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}",
    ),
];
