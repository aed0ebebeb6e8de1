use super::*;

#[test]
fn an_id_is_read_back_from_its_text() {
    let address = Address([0xff, 0, 1, 2, 3, 4, 5, 6, 7, 0x80]);
    let conversation = ConversationId::new(Millis(1_732_000_000_123), address);
    assert_eq!(conversation.to_string().len(), 31);
    assert_eq!(ConversationId::parse(&conversation.to_string()), Some(conversation));
    let message = MessageId::new(Millis(1_732_000_000_123), address, 77);
    assert_eq!(message.to_string().len(), 38);
    assert_eq!(MessageId::parse(&message.to_string()), Some(message));
    let delivery = DeliveryId(std::array::from_fn(|i| 250 - i as u8));
    assert_eq!(delivery.to_string().len(), 46);
    assert_eq!(DeliveryId::parse(&delivery.to_string()), Some(delivery));
}

#[test]
fn an_id_has_always_the_same_text() {
    let at = Millis(1_735_689_600_007);
    let address = Address([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(ConversationId::new(at, address).to_string(), "conv_06a1yabw0w0g40r40m30e20918");
    assert_eq!(MessageId::new(at, address, 3).to_string(), "msg_06a1yabw0w0g40r40m30e209180000000c");
}

#[test]
fn an_address_has_always_the_same_text() {
    let workspace = Address([0, 1, 0x0a, 0x10, 0xff, 5, 6, 7, 8, 9]);
    let id = Address([0xab; 10]);
    assert_eq!(workspace.to_string(), "00010a10ff0506070809");
    // Places of files' bytes begin with it.
    let folder = crate::attachment::folder(EntityKey::attachment(workspace, id));
    assert_eq!(folder, "00010a10ff0506070809/abababababababababab");
}

#[test]
fn ids_sort_as_text_by_time_then_by_number() {
    let address = Address([9; 10]);
    let id = |at, n| MessageId::new(Millis(at), address, n).to_string();
    let sorted = [id(1, 500), id(2, 1), id(2, 2), id(2, 300), id(1 << 40, 0)];
    assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]));
}

#[test]
fn no_other_spelling_of_an_id_is_read() {
    let id = MessageId::new(Millis(5), Address([1; 10]), 3).to_string();
    let last_bits_set = format!("{}{}", &id[..id.len() - 1], 'z');
    for other in [id.to_uppercase(), id.replace("msg_", "evt_"), format!("{id}0"), last_bits_set, String::new()] {
        assert_eq!(MessageId::parse(&other), None, "{other}");
    }
}

#[test]
fn parts_of_a_derived_address_do_not_run_together() {
    assert_ne!(Address::derive("x", &[b"ab", b"c"]), Address::derive("x", &[b"a", b"bc"]));
    assert_ne!(Address::derive("x", &[b"a"]), Address::derive("y", &[b"a"]));
}

#[test]
fn an_entity_key_is_read_back_from_its_bytes() {
    let key = EntityKey::contact(Address([1; 10]), Address([2; 10]));
    assert_eq!(EntityKey::from_bytes(&key.to_bytes()), Some(key));
    assert_eq!(EntityKey::from_bytes(&[0; EntityKey::LEN]), None);
}
