"""The platform as another client sees it: pika publishes and consumes, the CloudEvents SDK writes and reads.

    other_client.py AMQP_URL QUEUE COUNT < event.json

Publishes the event's data under new ids in every form that the SDK knows for RabbitMQ, each confirmed and mandatory, then
takes COUNT messages from QUEUE, reads each with the SDK, and prints one JSON object a line.
"""

import json
import sys

import pika
from cloudevents.core.bindings import amqp, rabbitmq
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from datetime import datetime, timezone


def main():
    url, queue, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    sample = json.load(sys.stdin)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.confirm_delivery()

    def event(number):
        data = dict(sample["data"])
        data["payment_id"] = f"judge-{number}"
        data["provider_reference"] = f"judge-reference-{number}"
        attributes = {
            "id": f"judge-{number}",
            "source": "urn:platform:judge",
            "type": sample["type"],
            "subject": f"judge-{number}",
            "time": datetime(2026, 11, 23, 9, 44, 31, 207000, tzinfo=timezone.utc),
            "datacontenttype": "application/json",
        }
        return CloudEvent(attributes, data)

    forms = [rabbitmq.to_structured_event, rabbitmq.to_binary_event]
    for number, form in enumerate(forms):
        message = form(event(number))
        properties = pika.BasicProperties(content_type=message.content_type, headers=message.headers or None, delivery_mode=2)
        channel.basic_publish("platform.events", f"{sample['type']}.example", message.body, properties, mandatory=True)
    for prefix in [amqp.CE_PREFIX_UNDERSCORE, amqp.CE_PREFIX_COLON]:
        number = len(forms) + (prefix == amqp.CE_PREFIX_COLON)
        message = amqp.to_binary_event(event(number))
        headers = {name.replace(amqp.CE_PREFIX_UNDERSCORE, prefix): value for name, value in message.application_properties.items()}
        properties = pika.BasicProperties(content_type=message.properties[amqp.CONTENT_TYPE_PROPERTY], headers=headers, delivery_mode=2)
        channel.basic_publish("platform.events", f"{sample['type']}.example", message.application_data, properties, mandatory=True)

    taken = 0
    for method, properties, body in channel.consume(queue, inactivity_timeout=60):
        if method is None:
            sys.exit(f"only {taken} of {count} messages came within a minute")
        headers = {name: str(value) for name, value in (properties.headers or {}).items()}
        message = rabbitmq.RabbitMQMessage(headers=headers, content_type=properties.content_type, body=body)
        read = rabbitmq.from_rabbitmq(message, JSONFormat(), CloudEvent)
        attributes = {name: str(value) for name, value in read.get_attributes().items()}
        print(json.dumps({"attributes": attributes, "data": read.get_data(), "message_id": properties.message_id,
                          "delivery_mode": properties.delivery_mode, "type": properties.type}))
        channel.basic_ack(method.delivery_tag)
        taken += 1
        if taken == count:
            break
    channel.cancel()
    connection.close()


main()
